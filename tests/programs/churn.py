"""Replaces blocks at random, in steps that a test asks for by making files in a directory.

    python3 churn.py DIR

Builds 30,000 objects, writes DIR/ready and waits for DIR/go; then replaces objects until DIR/stop is there, writes
DIR/done and waits for DIR/end, holding still. Run it with PYTHONMALLOC=malloc, so that each object is a block.
"""
import os
import random
import sys
import time


def wait_for(name):
    while not os.path.exists(os.path.join(sys.argv[1], name)):
        time.sleep(0.005)


def write(name):
    with open(os.path.join(sys.argv[1], name), "w"):
        pass


random.seed(7)
objects = [bytes(random.randrange(40, 900)) for _ in range(30_000)]
write("ready")
wait_for("go")
stop = os.path.join(sys.argv[1], "stop")
while not os.path.exists(stop):
    for _ in range(500):
        objects[random.randrange(len(objects))] = bytes(random.randrange(40, 900))
write("done")
wait_for("end")
