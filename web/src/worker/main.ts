// The worker: owns the WebSocket and the map's canvas, so that nothing the page does can hold them up.
export {};
