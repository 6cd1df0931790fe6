// The worker: owns the WebSocket and the map's canvas, so that nothing the page does can hold them up.
import { Engine } from "./engine";
import type { ToEngine } from "./messages";

const engine = new Engine((message) => postMessage(message));
onmessage = ({ data }: MessageEvent<ToEngine>) => engine.handle(data);
