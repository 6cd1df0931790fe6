// The command palette and the help sheet: two faces of the list of commands.

import { useSignal } from "@preact/signals";
import { COMMANDS, keyLabel, matching, type Command } from "../store/commands";
import { version } from "../store/session";
import { overlay } from "../store/view";
import { Dialog } from "./Dialog";

export function Palette() {
    const text = useSignal("");
    const at = useSignal(0);
    const found = matching(text.value);
    const chosen = Math.min(at.value, found.length - 1);
    const run = (command: Command | undefined) => {
        overlay.value = null;
        command?.run();
    };
    const key = (event: KeyboardEvent) => {
        if (event.key === "ArrowDown") at.value = Math.min(found.length - 1, chosen + 1);
        else if (event.key === "ArrowUp") at.value = Math.max(0, chosen - 1);
        else if (event.key === "Enter") run(found[chosen]);
        else return;
        event.preventDefault();
    };
    const type = (event: Event) => {
        text.value = (event.target as HTMLInputElement).value;
        at.value = 0;
    };
    return (
        <Dialog title="Command palette" kind="palette">
            <input
                class="field wide" type="text" role="combobox" aria-label="Command" aria-expanded="true" aria-controls="commands" autofocus
                aria-activedescendant={chosen >= 0 ? `command-${chosen}` : undefined} placeholder="What do you want to do?" onInput={type} onKeyDown={key}
            />
            <ul id="commands" role="listbox" aria-label="Commands">
                {found.map((one, n) => (
                    <li id={`command-${n}`} key={one.name} role="option" aria-selected={n === chosen ? "true" : "false"} onClick={() => run(one)}>
                        <span>{one.name}</span>
                        <span class="keys">{one.keys.map((name) => <kbd key={name}>{keyLabel(name)}</kbd>)}</span>
                    </li>
                ))}
                {found.length === 0 && <li class="nothing" role="option" aria-selected="false">Nothing is called that.</li>}
            </ul>
        </Dialog>
    );
}

const GROUPS = ["Go", "Time", "View", "Recording", "Help"] as const;

const MAP: [string, string][] = [
    ["Wheel", "zoom the map at the pointer"],
    ["Drag, W A S D, arrows", "move over the map"],
    ["Click", "pin the address in the inspector"],
    ["Double-click", "fit the whole heap"],
];

const TIMELINE: [string, string][] = [
    ["Click", "go to that moment"],
    ["Drag", "select a range: what grew, was freed, was temporary, survived"],
    ["Wheel", "zoom the time axis"],
    ["Double-click", "show all of it"],
];

export function Help() {
    return (
        <Dialog title="Help" kind="help">
            <div class="help-columns">
                {GROUPS.map((group) => (
                    <section key={group}>
                        <h3>{group}</h3>
                        <dl>
                            {COMMANDS.filter((one) => one.group === group && one.keys.length > 0).map((one) => (
                                <div key={one.name}>
                                    <dt>{one.keys.map((name) => <kbd key={name}>{keyLabel(name)}</kbd>)}</dt>
                                    <dd>{one.name}</dd>
                                </div>
                            ))}
                        </dl>
                    </section>
                ))}
                <Gestures title="On the map" list={MAP} />
                <Gestures title="On the timeline" list={TIMELINE} />
            </div>
            <p class="muted">Every underlined name explains itself when pressed: what it is, how it is made, what to do.{version.value ? ` This is memfrag ${version.value}.` : ""}</p>
        </Dialog>
    );
}

function Gestures({ title, list }: { title: string; list: [string, string][] }) {
    return (
        <section>
            <h3>{title}</h3>
            <dl>
                {list.map(([how, what]) => (
                    <div key={how}>
                        <dt>{how}</dt>
                        <dd>{what}</dd>
                    </div>
                ))}
            </dl>
        </section>
    );
}
