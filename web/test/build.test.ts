import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

test("the page has neither inline script nor inline style, and asks nothing of other hosts", () => {
    const html = readFileSync("src/index.html", "utf8");
    assert.doesNotMatch(html, /<script(?![^>]*\bsrc=)/);
    assert.doesNotMatch(html, /<style|\sstyle=/);
    assert.doesNotMatch(html, /(?:src|href)="(?:https?:)?\/\//);
});
