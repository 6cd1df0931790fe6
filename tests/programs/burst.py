"""Makes 80 MB of objects, keeps a small one in every 25, and drops the rest.

    burst.py [SECONDS]

Stays for so many seconds afterwards, half a second unless told otherwise.
"""

import random
import sys
import time

random.seed(1)
blocks, kept = [], []
for number in range(60_000):
    blocks.append(bytes(random.randrange(700, 1900)))
    if number % 25 == 0:
        kept.append(bytes(560))
blocks.clear()
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0.5)
print(len(kept), "survivors")
