// What the colours of the map mean, in words and numbers.
import { CLASS_MODES } from "../protocol";
import type { MapModel } from "./model";
import { isClassMode } from "./model";
import { legend, type LegendEntry } from "./palettes";

export function Legend({ model }: { model: MapModel }) {
    const mode = model.mode.value;
    const entries = legend(mode, model.theme.value, model.classes.value, model.geometry.value.level, model.cividis.value);
    const lit = model.highlighted.value;
    return (
        <div class="map-legend" role="group" aria-label="Legend">
            {lit !== null && (
                <button type="button" class="map-chip" title="Show all again" onClick={() => model.highlight(null)}>
                    lit: {lit.label} <span aria-hidden="true">✕</span>
                    {model.lit.value?.length === 0 && <em> (not among the largest; it is part of “other”)</em>}
                </button>
            )}
            {entries.map((entry) => (
                <Entry key={`${entry.value} ${entry.label}`} entry={entry} model={model} />
            ))}
            {CLASS_MODES.includes(mode) && entries.length < 3 && <span class="map-note">no classes yet</span>}
            {mode !== "site" && mode !== "thread" && (
                <button
                    type="button"
                    class="map-cividis"
                    aria-pressed={model.cividis.value}
                    title="Scales from dark blue to yellow, the same with and without red-green blindness (V)"
                    onClick={() => (model.cividis.value = !model.cividis.value)}
                >
                    Cividis
                </button>
            )}
            <span class="map-hint">wheel zooms · drag pans · click pins · double-click shows all</span>
        </div>
    );
}

function Entry({ entry, model }: { entry: LegendEntry; model: MapModel }) {
    const mode = model.mode.value;
    if (entry.ticks !== undefined) {
        return (
            <div class="map-legend-scale">
                <span>{entry.label}</span>
                <span class="map-ramp">
                    <span class="map-ramp-bar" style={{ background: `linear-gradient(to right, ${entry.colours.join(", ")})` }} />
                    {entry.ticks.map((tick) => (
                        <span key={tick.label} class="map-tick" style={{ left: `${100 * tick.at}%` }}>
                            {tick.label}
                        </span>
                    ))}
                </span>
            </div>
        );
    }
    const swatch = entry.colours[0] !== undefined && (
        <span class={entry.striped ? "map-swatch striped" : "map-swatch"} style={{ backgroundColor: entry.colours[0] }} />
    );
    if (isClassMode(mode) && entry.value !== undefined && entry.value >= 2) {
        const on = model.highlighted.value?.label === entry.label;
        return (
            <button
                type="button"
                class="map-legend-class"
                aria-pressed={on}
                title={`Light up ${entry.label}`}
                onClick={() => model.highlight(on ? null : { mode, label: entry.label })}
            >
                {swatch}
                <span class="map-legend-label">{entry.label}</span>
            </button>
        );
    }
    return (
        <span class="map-legend-entry">
            {swatch}
            {entry.label}
        </span>
    );
}
