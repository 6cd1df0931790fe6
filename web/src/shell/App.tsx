// The page: header, map, panels, timeline; dialogs above.

import type { ComponentType } from "preact";
import { Dock } from "../timeline/Dock";
import { Panels } from "../panels/Panels";
import { stale, status } from "../store/session";
import { overlay, type Overlay } from "../store/view";
import { Explanation } from "./Explain";
import { GoTo } from "./GoTo";
import { Header } from "./Header";
import { Help, Palette } from "./Palette";
import { Picker } from "./Picker";
import { DropZone, Export, Import } from "./Recordings";
import { Banners, Notes, Screen } from "./Screens";
import { Split } from "./Split";
import { MapPane } from "./MapPane";
import { connection } from "../store/session";

const OVERLAYS: Record<Overlay, ComponentType> = {
    palette: Palette, help: Help, import: Import, export: Export, goto: GoTo, processes: Picker, notes: Notes,
};

export function App() {
    const open = overlay.value;
    const Over = open ? OVERLAYS[open] : null;
    const blocked = status.value === null || ["no-token", "refused", "unsupported"].includes(connection.value.state);
    return (
        <div class={stale.value ? "shell stale" : "shell"}>
            <Header />
            <Banners />
            {blocked ? <Screen /> : (
                <main class="work">
                    <Split left={<MapPane />} right={<Panels />} />
                    <Dock />
                </main>
            )}
            {Over && <Over key={open} />}
            <Explanation />
            <DropZone />
        </div>
    );
}
