// The tree behind the flame graph: frames with their parents, the inverted tree, and search. Pure.

import type { FlameNode } from "../protocol";

export interface Frame {
    name: string;
    value: number;
    /** What is not in its children. */
    own: number;
    depth: number;
    parent: Frame | null;
    /** The largest first. */
    children: Frame[];
}

/** The tree with parents; without recursion, since the depth is the recording's. */
export function frames(root: FlameNode): Frame {
    const top: Frame = { name: root.name, value: root.value, own: 0, depth: 0, parent: null, children: [] };
    const work: [FlameNode, Frame][] = [[root, top]];
    for (let item = work.pop(); item; item = work.pop()) {
        const [node, frame] = item;
        let inside = 0;
        for (const child of [...(node.children ?? [])].sort((a, b) => b.value - a.value)) {
            if (!(child.value > 0)) continue;
            const made: Frame = { name: child.name, value: child.value, own: 0, depth: frame.depth + 1, parent: frame, children: [] };
            frame.children.push(made);
            work.push([child, made]);
            inside += child.value;
        }
        frame.own = Math.max(0, frame.value - inside);
    }
    return top;
}

/** The tree from the ends of the stacks: below a function, who called it. */
export function inverted(top: Frame): Frame {
    interface Build { name: string; value: number; below: Map<string, Build> }
    const root: Build = { name: top.name, value: 0, below: new Map() };
    const work: Frame[] = [top];
    for (let frame = work.pop(); frame; frame = work.pop()) {
        work.push(...frame.children);
        if (frame.own <= 0 || frame.parent === null) continue;
        let at = root;
        root.value += frame.own;
        for (let up: Frame | null = frame; up && up.parent; up = up.parent) {
            let next = at.below.get(up.name);
            if (!next) at.below.set(up.name, next = { name: up.name, value: 0, below: new Map() });
            next.value += frame.own;
            at = next;
        }
    }
    const out: FlameNode = { name: root.name, value: root.value, children: [] };
    const copies: [Build, FlameNode][] = [[root, out]];
    for (let item = copies.pop(); item; item = copies.pop()) {
        for (const child of item[0].below.values()) {
            const node: FlameNode = { name: child.name, value: child.value, children: [] };
            item[1].children.push(node);
            copies.push([child, node]);
        }
    }
    return frames(out);
}

/** How much of the tree matches, each stack counted once. */
export function matched(top: Frame, text: string): { hit: (frame: Frame) => boolean; value: number } {
    const lower = text.toLowerCase();
    const hit = (frame: Frame) => lower !== "" && frame.name.toLowerCase().includes(lower);
    if (lower === "") return { hit, value: 0 };
    let value = 0;
    const work: Frame[] = [top];
    for (let frame = work.pop(); frame; frame = work.pop()) {
        if (frame.parent !== null && hit(frame)) value += frame.value;
        else work.push(...frame.children);
    }
    return { hit, value };
}

/** The frames from the root down to one, both included. */
export function path(frame: Frame): Frame[] {
    const found: Frame[] = [];
    for (let up: Frame | null = frame; up; up = up.parent) found.unshift(up);
    return found;
}

/** The frame at the end of a path of names, or as far as it goes: what was zoomed to, in a newer tree. */
export function follow(top: Frame, names: readonly string[]): Frame {
    let at = top;
    for (const name of names) {
        const next = at.children.find((one) => one.name === name);
        if (!next) return at;
        at = next;
    }
    return at;
}
