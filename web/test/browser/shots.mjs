// Pictures of the map in every mode, layout and theme: `node test/browser/shots.mjs DIR [QUERY…]`.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { harness, settled } from "./harness.mjs";

const [dir = "shots", ...asked] = process.argv.slice(2);
mkdirSync(dir, { recursive: true });
const all = ["occupancy", "heat", "age", "resident", "site", "thread", "size"].flatMap((mode) =>
    ["dark", "light"].map((theme) => `?mode=${mode}&theme=${theme}`),
);
const queries = asked.length > 0 ? asked : [...all, "?layout=hilbert&theme=dark", "?layout=hilbert&theme=light&mode=heat"];
const { open, end } = await harness();
for (const query of queries) {
    const { page, errors, close } = await open(query);
    await settled(page);
    const name = query.replace(/[?&]?\w+=/g, "-").slice(1) || "map";
    await page.screenshot({ path: join(dir, `${name}.png`) });
    for (const error of errors) console.error(`${query}: ${error}`);
    await close();
}
await end();
