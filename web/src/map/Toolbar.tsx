// What of the heap is drawn, how it is laid out, and where.
import { useSignal } from "@preact/signals";
import { MODES, type Mode } from "../protocol";
import type { Layout } from "../worker/messages";
import { roundBytes } from "./format";
import type { MapModel } from "./model";

const NAMES: Record<Mode, [string, string]> = {
    occupancy: ["Occupancy", "How much of each cell live blocks take"],
    heat: ["Heat", "How often a page is allocated in and freed from, decaying"],
    age: ["Age", "How long ago something was last allocated there"],
    resident: ["Resident, empty", "Memory that is there but that no live block takes"],
    site: ["Call site", "Which call site's blocks take most of each cell"],
    thread: ["Thread", "Which thread's blocks take most of each cell"],
    size: ["Size", "Which size of blocks takes most of each cell"],
};

const LAYOUTS: Record<Layout, [string, string]> = {
    linear: ["Rows", "Addresses row by row; pages and size classes line up"],
    hilbert: ["Hilbert", "Along a Hilbert curve: what is near in memory is near in the picture, holes are blots"],
};

export interface ToolbarProps {
    model: MapModel;
    table: boolean;
    onTable: (shown: boolean) => void;
}

export function Toolbar({ model, table, onTable }: ToolbarProps) {
    const geometry = model.geometry.value;
    const { row, cell } = geometry.scaleBytes;
    const { unit } = model.frame.value;
    const square = `${Math.round(geometry.cellWidth / unit)} × ${Math.round(geometry.cellHeight / unit)} px`;
    const centre = () => [model.frame.value.width / 2, model.frame.value.height / 2] as const;
    return (
        <div class="map-toolbar">
            <div class="map-choice" role="radiogroup" aria-label="What the map shows">
                {MODES.map((mode) => (
                    <Choice key={mode} on={model.mode.value === mode} names={NAMES[mode]} choose={() => model.setMode(mode)} />
                ))}
            </div>
            <div class="map-choice" role="radiogroup" aria-label="Layout">
                {(Object.keys(LAYOUTS) as Layout[]).map((layout) => (
                    <Choice key={layout} on={model.layout.value === layout} names={LAYOUTS[layout]} choose={() => model.setLayout(layout)} />
                ))}
            </div>
            <div class="map-zoom">
                <button type="button" title="Zoom out (S or −)" aria-label="Zoom out" onClick={() => model.zoomBy(-1, ...centre())}>
                    −
                </button>
                <span class="map-scale" title={`A cell is drawn ${square}`}>
                    {model.spans.value.length > 0 && `${row === null ? "" : `row = ${roundBytes(row)}, `}cell = ${roundBytes(cell)}`}
                </span>
                <button type="button" title="Zoom in (W or +)" aria-label="Zoom in" onClick={() => model.zoomBy(1, ...centre())}>
                    +
                </button>
                <button
                    type="button"
                    title="The whole heap (F, or double-click)"
                    disabled={model.chosenZoom.value === null}
                    onClick={() => model.fit()}
                >
                    Fit
                </button>
            </div>
            <GoTo model={model} />
            <button type="button" class="map-table-button" aria-pressed={table} onClick={() => onTable(!table)}>
                Table
            </button>
        </div>
    );
}

function Choice({ on, names: [name, title], choose }: { on: boolean; names: [string, string]; choose: () => void }) {
    return (
        <button type="button" role="radio" aria-checked={on} title={title} onClick={choose}>
            {name}
        </button>
    );
}

function GoTo({ model }: { model: MapModel }) {
    const trouble = useSignal("");
    const go = (event: Event) => {
        event.preventDefault();
        const field = (event.currentTarget as HTMLFormElement).elements.namedItem("address") as HTMLInputElement;
        const text = field.value.trim();
        if (text === "") return;
        if (!/^(0x)?[0-9a-f]{1,16}$/i.test(text)) {
            trouble.value = "An address is hexadecimal, as 0x7f12a4c0";
            return;
        }
        const reached = model.goTo(text);
        const wanted = parseInt(text.replace(/^0x/i, ""), 16);
        if (reached === null) trouble.value = "No heap is known yet";
        else if (reached !== wanted) trouble.value = `Not in the heap; this is the nearest, 0x${reached.toString(16)}`;
        else {
            trouble.value = "";
            model.select(`0x${wanted.toString(16)}`);
        }
        if (reached !== null) model.cursor.value = reached - (reached % model.geometry.value.scaleBytes.cell);
    };
    return (
        <form class="map-goto" onSubmit={go}>
            <input
                name="address"
                type="text"
                placeholder="Go to 0x…"
                aria-label="Go to an address"
                autocomplete="off"
                spellcheck={false}
                aria-invalid={trouble.value !== ""}
                onInput={() => (trouble.value = "")}
            />
            {trouble.value !== "" && <span role="alert">{trouble.value}</span>}
        </form>
    );
}
