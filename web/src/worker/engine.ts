// What runs in the worker: keeps the connection, the cells and the canvas, asks the server for the tiles in view, and draws in step
// with the screen. It knows nothing of the page, so that it runs on the page's own thread where it must.
import { spans, type Span } from "../map/axis";
import { geometry, type Geometry } from "../map/geometry";
import { FREED_STRIPES, lookup, spread } from "../map/palettes";
import {
    CELLS_PER_TILE,
    decodeFrame,
    MAX_VIEW_TILES,
    type Mode,
    type PaletteClass,
    type TileFrame,
    type View,
} from "../protocol";
import { Cells } from "./cells";
import { Link } from "./link";
import type { FromEngine, Probe, Scene, Timing, ToEngine } from "./messages";
import { Painter, type Context, type Look } from "./painter";

/** Views are asked for no more often than this, whatever the wheel does. */
const VIEW_INTERVAL_MS = 50;
/** A view comes in one frame or in many. What has not come this long after the last new tile is empty. */
const SETTLE_MS = 200;
/** And this long after it was asked for, when there was no frame at all. */
const SETTLE_SILENT_MS = 1500;
/** A frame that cannot be drawn, since the page is hidden, is acknowledged after this all the same. */
const UNDRAWN_ACK_MS = 250;
/** Number of a view that no frame answers. */
const UNASKED = -1;
/** Times kept by the probe of durations. */
const TIMES = 4000;

export class Engine {
    private readonly link: Link;
    private cells = new Cells("occupancy", 0);
    private painter: Painter | null = null;
    private spans: Span[] = [];
    private scene: Scene | null = null;
    private geometry: Geometry | null = null;
    private readonly classes = new Map<Mode, PaletteClass[]>();
    private table: { key: string; look: Look } = { key: "", look: { table: new Uint32Array(256), striped: null } };

    private watched = false;
    private view = 0;
    private asked = "";
    private askedAt = 0;
    private viewTimer: ReturnType<typeof setTimeout> | undefined;
    private settleTimer: ReturnType<typeof setTimeout> | undefined;
    private visible = true;

    private everything = true;
    private scheduled = false;
    private readonly undrawn: number[] = [];
    private ackTimer: ReturnType<typeof setTimeout> | undefined;
    private at_ns = 0;

    private timing: Timing | null = null;
    private work = 0;
    private lastFrame = 0;

    constructor(private readonly tell: (message: FromEngine) => void) {
        this.link = new Link({
            state: (link) => {
                if (link.phase === "open") this.watched = false;
                this.tell({ from: "link", link });
            },
            message: (message) => {
                if (message.type === "status" && !this.watched) this.watch();
                if (message.type === "palette") this.setClasses(message.mode, message.classes);
                this.tell({ from: "message", message });
            },
            frame: (buffer) => this.frame(buffer),
            answered: (id, result) => this.tell({ from: "answer", id, result }),
            failed: (id, message) => this.tell({ from: "failed", id, message }),
            malformed: (message) => this.tell({ from: "malformed", message }),
        });
    }

    handle(message: ToEngine): void {
        switch (message.to) {
            case "connect":
                return this.link.connect(message.url, message.token);
            case "close":
                return this.link.close();
            case "send":
                if (this.link.send(message.message) && message.message.type === "watch") {
                    this.cells.clear();
                    this.watch();
                }
                return;
            case "query":
                return this.link.query(message);
            case "canvas": {
                const context = message.canvas.getContext("2d") as Context | null;
                this.painter = context === null ? null : new Painter(context);
                if (this.scene !== null) this.painter?.resize(this.scene.width, this.scene.height);
                return this.redraw();
            }
            case "regions":
                this.spans = spans(message.regions);
                return this.lay();
            case "scene":
                this.scene = message.scene;
                return this.lay();
            case "probe":
                return this.tell({ from: "probe", id: message.id, probe: this.probe(message.x, message.y) });
            case "timing":
                return this.measure(message.id, message.reset);
            case "visible":
                this.visible = message.visible;
                return this.askSoon();
        }
    }

    // ---- the view -----------------------------------------------------------------------------------------------------------

    /** Another process, or another connection: nothing that is shown can be built upon. */
    private restart(): void {
        this.asked = "";
        this.askSoon();
    }

    /** There is a process on this connection whose cells can be asked for. */
    private watch(): void {
        this.watched = true;
        this.restart();
    }

    private setClasses(mode: Mode, classes: PaletteClass[]): void {
        this.classes.set(mode, classes);
        if (this.cells.mode === mode) this.redraw();
    }

    private lay(): void {
        if (this.scene === null) return;
        const scene = this.scene;
        this.geometry = geometry(scene.layout, this.spans, scene.zoom, scene);
        this.painter?.resize(scene.width, scene.height);
        if (this.geometry.level !== this.cells.level) {
            // Until the server has sent that level, what is there is shown at its scale.
            this.asked = "";
            this.cells.begin(UNASKED, scene.mode, this.geometry.level, this.wanted());
        }
        this.askSoon();
        this.redraw();
    }

    /** Asks for the tiles in view, now or when the interval is over. */
    private askSoon(): void {
        if (this.viewTimer !== undefined) return;
        const wait = this.askedAt + VIEW_INTERVAL_MS - performance.now();
        if (wait <= 0) return this.ask();
        this.viewTimer = setTimeout(() => {
            this.viewTimer = undefined;
            this.ask();
        }, wait);
    }

    private ask(): void {
        if (this.scene === null || this.geometry === null || !this.watched || !this.link.open) return;
        const wanted = this.wanted();
        if (wanted.size === 0 && this.asked === "") return;
        const body = {
            mode: this.scene.mode,
            level: this.geometry.level,
            tiles: ranges(wanted),
            hz: this.visible ? this.scene.hz : Math.min(1, this.scene.hz),
        };
        const asked = JSON.stringify(body);
        if (asked === this.asked) return;
        this.asked = asked;
        this.askedAt = performance.now();
        this.view = (this.view + 1) % 0x10000;
        const message: View = { type: "view", view: this.view, ...body };
        this.link.send(message);
        this.cells.begin(this.view, body.mode, body.level, wanted);
        this.settleIn(SETTLE_SILENT_MS);
        this.redraw();
    }

    private wanted(): Set<number> {
        const wanted = new Set<number>();
        for (const spot of this.geometry?.spots(this.scene!.scroll, this.scene!.height) ?? []) {
            if (wanted.size < MAX_VIEW_TILES) wanted.add(spot.tile);
        }
        return wanted;
    }

    private settleIn(ms: number): void {
        clearTimeout(this.settleTimer);
        this.settleTimer = setTimeout(() => {
            if (this.cells.settle()) this.redraw();
        }, ms);
    }

    // ---- frames -------------------------------------------------------------------------------------------------------------

    private frame(buffer: ArrayBuffer): void {
        const began = performance.now();
        let frame: TileFrame;
        try {
            frame = decodeFrame(buffer);
        } catch (error) {
            // Its number is not to be trusted, so it stays unacknowledged; the view is begun again.
            this.tell({ from: "malformed", message: error instanceof Error ? error.message : String(error) });
            return this.restart();
        }
        const first = this.undrawn.length === 0;
        this.undrawn.push(frame.seq);
        this.at_ns = frame.at_ns;
        const known = this.cells.waiting ? -1 : this.cells.fresh.size;
        const changed = this.cells.apply(frame);
        if (changed !== "nothing" && this.cells.fresh.size > known) this.settleIn(SETTLE_MS);
        if (changed === "all") this.everything = true;
        if (this.timing !== null) this.timing.tiles.push(frame.tiles.length);
        this.work += performance.now() - began;
        if (first) this.ackTimer = setTimeout(() => this.acknowledge(), UNDRAWN_ACK_MS);
        this.schedule();
    }

    private acknowledge(): void {
        clearTimeout(this.ackTimer);
        for (const seq of this.undrawn) this.link.send({ type: "ack", seq });
        this.undrawn.length = 0;
    }

    private redraw(): void {
        this.everything = true;
        this.schedule();
    }

    private schedule(): void {
        if (this.scheduled) return;
        this.scheduled = true;
        requestAnimationFrame((now) => {
            this.scheduled = false;
            this.draw(now);
        });
    }

    private draw(now: number): void {
        const began = performance.now();
        const { painter, geometry, scene, cells } = this;
        if (painter !== null && geometry !== null && scene !== null && scene.width > 0 && scene.height > 0) {
            const source = (tile: number) => (cells.level === geometry.level ? cells.get(tile) : undefined);
            if (this.everything) painter.repaint(geometry, scene.scroll, source, this.look(scene));
            else if (cells.dirty.size > 0) painter.update(geometry, scene.scroll, cells.dirty, source, this.look(scene));
            this.everything = false;
            cells.dirty.clear();
        }
        this.acknowledge();
        if (this.timing !== null) this.time(now, began);
        this.work = 0;
        this.tell({ from: "drawn", at_ns: this.at_ns });
    }

    private look(scene: Scene): Look {
        const mode = this.cells.mode;
        const classes = spread(this.classes.get(mode) ?? []);
        const highlight = mode === scene.mode ? scene.highlight : null;
        const key = `${mode} ${scene.theme} ${classes} ${highlight?.join() ?? "-"} ${scene.cividis}`;
        if (this.table.key !== key) {
            const table = lookup(mode, scene.theme, classes, highlight, scene.cividis);
            this.table = { key, look: { table, striped: mode === "occupancy" ? FREED_STRIPES : null } };
        }
        return this.table.look;
    }

    // ---- questions about the picture ----------------------------------------------------------------------------------------

    private probe(x: number, y: number): Probe {
        const rgba = this.painter?.at(x, y) ?? [0, 0, 0, 0];
        const mode = this.cells.mode;
        const address = this.geometry?.addressAt(x, y + (this.scene?.scroll ?? 0)) ?? null;
        if (this.geometry === null || address === null) return { cell: null, rgba, mode };
        const { level, scaleBytes } = this.geometry;
        const index = Math.floor(address / scaleBytes.cell);
        const [tile, cell] = [Math.floor(index / CELLS_PER_TILE), index % CELLS_PER_TILE];
        const value = this.cells.level === level ? (this.cells.get(tile)?.[cell] ?? 0) : 0;
        return { cell: { level, tile, cell, address, value }, rgba, mode };
    }

    /** Answers with the times since the last question and, with `reset`, goes on measuring every frame of the screen. */
    private measure(id: number, reset: boolean): void {
        const none = { frames: 0, draw: [], frame: [], tiles: [] };
        this.tell({ from: "timing", id, timing: this.timing ?? none });
        this.timing = reset ? { ...none, draw: [], frame: [], tiles: [] } : null;
        this.lastFrame = 0;
        if (reset) this.schedule();
    }

    private time(now: number, began: number): void {
        const timing = this.timing!;
        if (timing.frame.length < TIMES) {
            timing.frames++;
            if (this.lastFrame > 0) timing.frame.push(now - this.lastFrame);
            if (this.work > 0) timing.draw.push(this.work + performance.now() - began);
        }
        this.lastFrame = now;
        this.schedule();
    }
}

/** Numbers as `[first, count]`, upwards. */
export function ranges(numbers: Iterable<number>): [number, number][] {
    const result: [number, number][] = [];
    for (const number of [...numbers].sort((a, b) => a - b)) {
        const last = result.at(-1);
        if (last !== undefined && last[0] + last[1] === number) last[1]++;
        else result.push([number, 1]);
    }
    return result;
}
