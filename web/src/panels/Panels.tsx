// The panels beside the map, one at a time.

import type { ComponentType } from "preact";
import { useRef } from "preact/hooks";
import { TABS, type Tab } from "../store/permalink";
import { TAB_NAMES } from "../store/commands";
import { range, tab } from "../store/view";
import { BlamePanel } from "./blame/BlamePanel";
import { ComparePanel } from "./compare/ComparePanel";
import { DistributionsPanel } from "./DistributionsPanel";
import { EventsPanel } from "./events/EventsPanel";
import { FlamePanel } from "../flame/FlamePanel";
import { InspectorPanel } from "./InspectorPanel";
import { Overview } from "./overview/Overview";
import { RangePanel } from "./RangePanel";

const PANELS: Record<Tab, ComponentType> = {
    overview: Overview, blame: BlamePanel, inspector: InspectorPanel, range: RangePanel,
    flame: FlamePanel, events: EventsPanel, compare: ComparePanel, distributions: DistributionsPanel,
};

export function Panels() {
    const strip = useRef<HTMLDivElement>(null);
    const now = tab.value;
    const Panel = PANELS[now];
    const move = (event: KeyboardEvent) => {
        const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
        if (by === 0) return;
        event.preventDefault();
        event.stopPropagation();
        const next = TABS[(TABS.indexOf(now) + by + TABS.length) % TABS.length] ?? now;
        tab.value = next;
        strip.current?.querySelector<HTMLElement>(`#tab-${next}`)?.focus();
    };
    return (
        <section class="panels" aria-label="Panels">
            <div ref={strip} class="tabs" role="tablist" aria-label="Panels" onKeyDown={move}>
                {TABS.map((one, n) => (
                    <button
                        type="button" key={one} id={`tab-${one}`} role="tab" aria-selected={one === now ? "true" : "false"} aria-controls="panel"
                        tabIndex={one === now ? 0 : -1} title={`${TAB_NAMES[one]} (${n + 1})`} onClick={() => { tab.value = one; }}
                    >
                        {TAB_NAMES[one]}{one === "range" && range.value ? <i class="has" aria-label="a range is selected" /> : null}
                    </button>
                ))}
            </div>
            <div id="panel" class={`panel ${now}`} role="tabpanel" aria-labelledby={`tab-${now}`} tabIndex={-1}>
                <Panel />
            </div>
        </section>
    );
}
