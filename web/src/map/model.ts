// State of the map on the page's side: what is shown of which addresses, what is pinned and lit. The engine draws by what this tells.
import { batch, computed, effect, signal } from "@preact/signals";
import { CLASS_MODES, formatAddress, parseAddress, type Address, type Mode, type PaletteClass, type Region } from "../protocol";
import type { Client } from "../worker/client";
import type { Highlight, Layout, Theme } from "../worker/messages";
import { nearest, spanAt, spans } from "./axis";
import { fit, geometry, type Frame } from "./geometry";
import { extent, type HighlightRequest, type MapPlace, type Marked } from "./selection";
import { CLOSEST, zoomStep } from "./zoom";

/** Frames a second asked of the server while the page is seen. */
const HZ = 30;
/** A cell is drawn at least this many pixels of the page wide and high. */
const GRAIN = 2;
const HISTORY = 50;
/** Steps of the wheel that follow one another faster than this are one turn. */
const TURN_MS = 1500;

export class MapModel {
    readonly mode = signal<Mode>("occupancy");
    readonly layout = signal<Layout>("linear");
    readonly theme = signal<Theme>("dark");
    /** All scales are cividis, for eyes that other colours fail. */
    readonly cividis = signal(false);
    readonly regions = signal<readonly Region[]>([]);
    readonly palettes = signal<ReadonlyMap<Mode, PaletteClass[]>>(new Map());
    /** The zoom, or null: everything is fitted in, also when the heap grows. */
    readonly chosenZoom = signal<number | null>(null);
    readonly frame = signal<Omit<Frame, "fill">>({ width: 0, height: 0, grain: GRAIN, unit: 1 });
    /** Device pixels of the content above the canvas. */
    readonly scroll = signal(0);
    /** The address that was clicked, or chosen from elsewhere; panels show what is there. */
    readonly selected = signal<Address | null>(null);
    /** Outlined: the block that is selected. */
    readonly marked = signal<Marked | null>(null);
    readonly highlighted = signal<HighlightRequest | null>(null);
    /** Cell under the keyboard's cursor. */
    readonly cursor = signal<number | null>(null);

    readonly spans = computed(() => spans(this.regions.value));
    readonly fitted = computed(() =>
        fit(this.layout.value, this.spans.value, { ...this.frame.value, fill: false }),
    );
    readonly zoom = computed(() => this.chosenZoom.value ?? this.fitted.value);
    readonly geometry = computed(() => {
        const frame = { ...this.frame.value, fill: this.chosenZoom.value === null };
        return geometry(this.layout.value, this.spans.value, this.zoom.value, frame);
    });
    readonly classes = computed(() => this.palettes.value.get(this.mode.value) ?? []);
    /** Values that are lit, or null. An empty list: the class is not among those of the palette. */
    readonly lit = computed<Highlight>(() => {
        const wanted = this.highlighted.value;
        if (wanted === null || wanted.mode !== this.mode.value) return null;
        return this.classes.value.filter((c) => c.label === wanted.label).map((c) => c.value);
    });

    /** Where one is; changes with every scroll. */
    readonly place = computed<MapPlace>(() => {
        const zoom = this.chosenZoom.value;
        const address = zoom === null ? null : this.near(0, 0);
        return { layout: this.layout.value, at: zoom === null || address === null ? null : { address: formatAddress(address), zoom } };
    });

    private readonly history: { zoom: number | null; scroll: number; at: number }[] = [];
    private anchor: { x: number; y: number; address: number; at: number } | null = null;
    private readonly stop: (() => void)[] = [];

    constructor(readonly client: Client) {
        this.stop.push(
            client.onMessage((message) => {
                if (message.type === "regions") this.setRegions(message.regions);
                if (message.type === "palette") this.palettes.value = new Map(this.palettes.value).set(message.mode, message.classes);
            }),
        );
        let sent: readonly Region[] | null = null;
        this.stop.push(
            effect(() => {
                const regions = this.regions.value;
                const { width, height, grain, unit } = this.frame.value;
                const scene = {
                    mode: this.mode.value,
                    layout: this.layout.value,
                    theme: this.theme.value,
                    zoom: this.zoom.value,
                    scroll: this.scroll.value,
                    highlight: this.lit.value,
                    cividis: this.cividis.value,
                    hz: HZ,
                    width,
                    height,
                    grain,
                    unit,
                    fill: this.chosenZoom.value === null,
                };
                if (width === 0 || height === 0) return;
                if (sent !== regions) client.regions([...regions]);
                sent = regions;
                client.scene(scene);
            }),
        );
    }

    dispose(): void {
        for (const stop of this.stop) stop();
    }

    /** The canvas has this many pixels of the page, each of `ratio` pixels of the device. */
    resize(width: number, height: number, ratio: number): void {
        const grain = Math.max(1, Math.round(GRAIN * ratio));
        const frame = { width: Math.round(width * ratio), height: Math.round(height * ratio), grain, unit: ratio };
        this.keep(() => (this.frame.value = frame));
    }

    setRegions(regions: Region[]): void {
        this.keep(() => (this.regions.value = regions));
    }

    setLayout(layout: Layout): void {
        this.keep(() => (this.layout.value = layout));
    }

    /** Shows another statistic of the same cells. What was lit in another mode is no longer. */
    setMode(mode: Mode): void {
        batch(() => {
            this.mode.value = mode;
            if (this.highlighted.value?.mode !== mode) this.highlighted.value = null;
        });
    }

    /** Lights up all cells of a class, or none. */
    highlight(what: HighlightRequest | null): void {
        batch(() => {
            if (what !== null) this.mode.value = what.mode;
            this.highlighted.value = what;
        });
    }

    /** Everything in view. */
    fit(): void {
        this.remember();
        batch(() => {
            this.chosenZoom.value = null;
            this.scroll.value = 0;
        });
    }

    /** Brings an address to the middle of the picture, close enough that `size` bytes are some cells. Says where, or null: no such range. */
    goTo(address: Address | number, size = 4096): number | null {
        const wanted = typeof address === "number" ? address : parseAddress(address);
        if (wanted === null) return null;
        const target = nearest(this.spans.value, wanted);
        if (target === null) return null;
        this.remember();
        let zoom = this.zoom.value;
        while (zoom < CLOSEST && zoomStep(zoom).level > -4 && 4 ** (6 + zoomStep(zoom).level) > size / 4) zoom++;
        batch(() => {
            this.chosenZoom.value = zoom;
            const rect = this.geometry.value.cellRect(target);
            if (rect !== null) this.scrollTo(rect.y + rect.height / 2 - this.frame.value.height / 2);
        });
        return target;
    }

    /** Scrolls to an address without zooming. */
    centre(address: number): void {
        const rect = this.geometry.value.cellRect(address);
        if (rect !== null) this.scrollTo(rect.y - this.frame.value.height / 2);
    }

    /** Zooms by `steps`, the point (`x`, `y`) of the canvas stays where it is. */
    zoomBy(steps: number, x: number, y: number): void {
        const from = this.zoom.value;
        const to = Math.min(CLOSEST, Math.max(Math.min(from, this.fitted.value), from + steps));
        if (to === from) return;
        const anchor = this.anchorAt(x, y);
        this.remember();
        batch(() => {
            this.chosenZoom.value = to === this.fitted.value ? null : to;
            if (anchor === null) return this.scrollTo(this.scroll.value);
            const rect = this.geometry.value.cellRect(anchor);
            if (rect !== null) this.scrollTo(rect.y + rect.height / 2 - y);
        });
    }

    /** What stays in place: during one turn of the wheel the same address, though rows fold differently at each step. */
    private anchorAt(x: number, y: number): number | null {
        const now = performance.now();
        const last = this.anchor;
        const same = last !== null && now - last.at < TURN_MS && Math.hypot(last.x - x, last.y - y) < 4;
        const address = same ? last.address : (this.byteAt(x, y) ?? this.near(x, y));
        this.anchor = address === null ? null : { x, y, address, at: now };
        return address;
    }

    panBy(pixels: number): void {
        this.scrollTo(this.scroll.value + pixels);
    }

    scrollTo(top: number): void {
        const most = Math.max(0, this.geometry.value.contentHeight - this.frame.value.height);
        this.scroll.value = Math.round(Math.min(most, Math.max(0, top)));
    }

    /** Back to where one was before the last jump or zoom. */
    back(): boolean {
        const last = this.history.pop();
        if (last === undefined) return false;
        batch(() => {
            this.chosenZoom.value = last.zoom;
            this.scrollTo(last.scroll);
        });
        return true;
    }

    /** Pins an address; null lets it go. The block or hole that is there is outlined as soon as the server has told which. */
    select(address: Address | null): void {
        if (address === this.selected.peek()) return;
        batch(() => {
            this.selected.value = address;
            this.marked.value = null;
        });
        if (address !== null) void this.outline(address);
    }

    private async outline(address: Address): Promise<void> {
        const found = await this.client.query("at", { address }).catch(() => null);
        if (found !== null && this.selected.peek() === address) this.marked.value = extent(found);
    }

    /** Goes where a permalink says; the address may come before the regions are known. */
    restore(place: MapPlace): void {
        batch(() => {
            this.layout.value = place.layout;
            this.chosenZoom.value = place.at === null ? null : Math.min(CLOSEST, Math.max(0, Math.round(place.at.zoom)));
        });
        const address = place.at === null ? null : parseAddress(place.at.address);
        if (address === null) return;
        const stop = effect(() => {
            if (this.spans.value.length === 0 || this.frame.value.height === 0) return;
            queueMicrotask(() => {
                stop();
                const rect = this.geometry.value.cellRect(address);
                if (rect !== null) this.scrollTo(rect.y);
            });
        });
    }

    /** Address of the cell at a point of the canvas. */
    at(x: number, y: number): number | null {
        return this.geometry.value.addressAt(x, y + this.scroll.value);
    }

    /** The byte under a point: in the linear layout the place within the cell counts as well. */
    byteAt(x: number, y: number): number | null {
        const cell = this.at(x, y);
        if (cell === null || this.layout.value !== "linear") return cell;
        const geometry = this.geometry.value;
        const rect = geometry.cellRect(cell);
        if (rect === null) return cell;
        const share = Math.min(0.999, Math.max(0, (x - rect.x) / rect.width));
        return nearest(this.spans.value, cell + Math.floor(share * geometry.scaleBytes.cell));
    }

    /** Moves the keyboard's cursor by a cell, or by a row; it begins at the top left. */
    moveCursor(across: number, down: number): number | null {
        const at = this.cursor.value;
        const geometry = this.geometry.value;
        let next: number | null;
        if (at === null) next = this.near(0, 0);
        else if (geometry.scaleBytes.row !== null) {
            next = nearest(this.spans.value, at + across * geometry.scaleBytes.cell + down * geometry.scaleBytes.row);
            // Over a gap to the range beyond it.
            if (next !== null && across + down > 0 && next < at + geometry.scaleBytes.cell) {
                next = this.spans.value.find((span) => span.start > at)?.start ?? next;
            }
        } else {
            const rect = geometry.cellRect(at);
            const side = geometry.cellWidth;
            next = rect === null ? null : geometry.addressAt(rect.x + side * (across + 0.5), rect.y + side * (down + 0.5));
        }
        if (next === null) return at;
        next -= next % geometry.scaleBytes.cell;
        this.cursor.value = next;
        this.reveal(next);
        return next;
    }

    /** Scrolls so far that the cell of `address` is in the picture. */
    reveal(address: number): void {
        const rect = this.geometry.value.cellRect(address);
        if (rect === null) return;
        const [top, height] = [this.scroll.value, this.frame.value.height];
        if (rect.y < top) this.scrollTo(rect.y);
        else if (rect.y + rect.height > top + height) this.scrollTo(rect.y + rect.height - height);
    }

    regionAt(address: number): Region | null {
        return spanAt(this.spans.value, address)?.region ?? null;
    }

    /** The cell at a point of the canvas, or one near it. */
    near(x: number, y: number): number | null {
        const { width, height, unit } = this.frame.value;
        for (let away = 0; away < height; away += 4 * unit) {
            for (const at of [y + away, y - away]) {
                if (at < 0 || at >= height) continue;
                for (const across of [x, 0, width / 4, width / 2, width - 1]) {
                    const address = this.at(across, at);
                    if (address !== null) return address;
                }
            }
        }
        return null;
    }

    /** Changes the geometry and keeps the address at the top where it is, unless everything is fitted in. */
    private keep(change: () => void): void {
        batch(() => {
            const anchor = this.chosenZoom.value === null || this.frame.value.height === 0 ? null : this.near(0, 0);
            const before = anchor === null ? null : this.geometry.value.cellRect(anchor);
            change();
            if (anchor === null || before === null) return this.scrollTo(this.chosenZoom.value === null ? 0 : this.scroll.value);
            const after = this.geometry.value.cellRect(anchor);
            if (after !== null) this.scrollTo(this.scroll.value + after.y - before.y);
        });
    }

    private remember(): void {
        const last = this.history.at(-1);
        const now = performance.now();
        // The steps of one turn of the wheel are one step back.
        if (last !== undefined && now - last.at < TURN_MS) last.at = now;
        else this.history.push({ zoom: this.chosenZoom.value, scroll: this.scroll.value, at: now });
        if (this.history.length > HISTORY) this.history.shift();
    }
}

/** Whether the cells of a mode are classes. */
export function isClassMode(mode: Mode): mode is HighlightRequest["mode"] {
    return CLASS_MODES.includes(mode);
}
