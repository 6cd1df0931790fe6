// The map in words: its ranges by how full they are, and the largest holes. For those who cannot see the picture, and for copying.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Hole, Region } from "../protocol";
import { bytes, count } from "../format";
import type { MapModel } from "./model";

const MOST_REGIONS = 200;
const MOST_HOLES = 50;

/** Regions with the emptiest first, and of those the largest. */
export function byOccupancy(regions: readonly Region[]): { region: Region; size: number; share: number }[] {
    return regions
        .map((region) => {
            const size = Number(region.end) - Number(region.start);
            return { region, size, share: size > 0 ? Math.min(1, region.live_bytes / size) : 0 };
        })
        .sort((a, b) => a.share - b.share || b.size - a.size);
}

export function RegionTable({ model, onShow }: { model: MapModel; onShow: (address: string) => void }) {
    const rows = byOccupancy(model.regions.value);
    return (
        <div class="map-tables">
            <table>
                <caption>
                    {count(rows.length)} ranges of the heap, the emptiest first
                    {rows.length > MOST_REGIONS && `; the first ${MOST_REGIONS}`}
                </caption>
                <thead>
                    <tr>
                        <th scope="col">Range</th>
                        <th scope="col">What it is</th>
                        <th scope="col">Size</th>
                        <th scope="col">Live</th>
                        <th scope="col">Blocks</th>
                        <th scope="col">In memory</th>
                        <th scope="col">Taken by live blocks</th>
                    </tr>
                </thead>
                <tbody>
                    {rows.slice(0, MOST_REGIONS).map(({ region, size, share }) => (
                        <tr key={region.start}>
                            <td>
                                <Where address={region.start} text={`${region.start} – ${region.end}`} onShow={onShow} />
                            </td>
                            <td>
                                {region.label || region.kind}
                                {region.label && region.label !== region.kind ? ` (${region.kind})` : ""}
                            </td>
                            <td class="number">{bytes(size)}</td>
                            <td class="number">{bytes(region.live_bytes)}</td>
                            <td class="number">{count(region.live_blocks)}</td>
                            <td class="number">{region.resident_bytes === null ? "unknown" : bytes(region.resident_bytes)}</td>
                            <td class="number">{(100 * share).toFixed(1)} %</td>
                        </tr>
                    ))}
                </tbody>
            </table>
            <Holes model={model} onShow={onShow} />
        </div>
    );
}

function Holes({ model, onShow }: { model: MapModel; onShow: (address: string) => void }) {
    const holes = useSignal<Hole[] | null>(null);
    const trouble = useSignal("");
    const load = () => {
        model.client.query("holes", { limit: MOST_HOLES }).then(
            (found) => ((holes.value = found.holes), (trouble.value = "")),
            (error: Error) => (trouble.value = error.message),
        );
    };
    useEffect(load, []);
    return (
        <table>
            <caption>
                The largest holes between live blocks{" "}
                <button type="button" onClick={load}>
                    Again
                </button>
            </caption>
            <thead>
                <tr>
                    <th scope="col">Range</th>
                    <th scope="col">Size</th>
                    <th scope="col">In memory</th>
                </tr>
            </thead>
            <tbody>
                {trouble.value !== "" && (
                    <tr>
                        <td colSpan={3}>Not known: {trouble.value}</td>
                    </tr>
                )}
                {holes.value === null && trouble.value === "" && (
                    <tr>
                        <td colSpan={3}>…</td>
                    </tr>
                )}
                {holes.value?.length === 0 && (
                    <tr>
                        <td colSpan={3}>There are none.</td>
                    </tr>
                )}
                {holes.value?.map((hole) => (
                    <tr key={hole.start}>
                        <td>
                            <Where address={hole.start} text={`${hole.start} – ${hole.end}`} onShow={onShow} />
                        </td>
                        <td class="number">{bytes(hole.bytes)}</td>
                        <td class="number">{hole.resident_bytes === null ? "unknown" : bytes(hole.resident_bytes)}</td>
                    </tr>
                ))}
            </tbody>
        </table>
    );
}

function Where({ address, text, onShow }: { address: string; text: string; onShow: (address: string) => void }) {
    return (
        <button type="button" class="map-link" title="Show it in the map" onClick={() => onShow(address)}>
            {text}
        </button>
    );
}
