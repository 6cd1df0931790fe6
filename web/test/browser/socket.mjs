// The server's half of RFC 6455, as far as a test needs it: an http server's upgrades become sockets with messages.
import { createHash } from "node:crypto";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const [TEXT, BINARY, CLOSE, PING, PONG] = [1, 2, 8, 9, 10];

/** Calls `accept(socket, request)` for every upgrade; a socket has `send`, `close`, `onmessage`, `onclose`. */
export function sockets(server, protocol, accept) {
    server.on("upgrade", (request, stream) => {
        const key = createHash("sha1").update(request.headers["sec-websocket-key"] + GUID).digest("base64");
        stream.write(
            ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", `Sec-WebSocket-Accept: ${key}`,
                `Sec-WebSocket-Protocol: ${protocol}`, "", ""].join("\r\n"),
        );
        stream.setNoDelay(true);
        accept(wrap(stream), request);
    });
}

function wrap(stream) {
    const socket = { onmessage: () => {}, onclose: () => {}, send, close: () => stream.destroy(), waiting: () => stream.writableLength };
    let data = Buffer.alloc(0);
    let text = [];
    stream.on("data", (chunk) => {
        data = Buffer.concat([data, chunk]);
        for (let frame = take(); frame !== null; frame = take()) {
            if (frame.code === CLOSE) return stream.end(head(CLOSE, 0));
            if (frame.code === PING) write(PONG, frame.body);
            if (frame.code === PONG) continue;
            text.push(frame.body);
            if (!frame.last) continue;
            const message = Buffer.concat(text).toString();
            text = [];
            socket.onmessage(message);
        }
    });
    stream.on("close", () => socket.onclose());
    stream.on("error", () => stream.destroy());

    function take() {
        if (data.length < 2) return null;
        let length = data[1] & 127;
        let at = 2;
        if (length === 126) {
            if (data.length < 4) return null;
            length = data.readUInt16BE(2);
            at = 4;
        } else if (length === 127) {
            if (data.length < 10) return null;
            length = Number(data.readBigUInt64BE(2));
            at = 10;
        }
        if (data.length < at + 4 + length) return null;
        const mask = data.subarray(at, at + 4);
        const body = Buffer.from(data.subarray(at + 4, at + 4 + length));
        for (let n = 0; n < length; n++) body[n] ^= mask[n & 3];
        const frame = { last: (data[0] & 128) !== 0, code: data[0] & 15, body };
        data = data.subarray(at + 4 + length);
        return frame;
    }

    function send(message) {
        if (typeof message === "string") write(TEXT, Buffer.from(message));
        else write(BINARY, message);
    }

    function write(code, body) {
        if (stream.destroyed) return;
        stream.write(head(code, body.length));
        stream.write(body);
    }
    return socket;
}

function head(code, length) {
    if (length < 126) return Buffer.from([128 | code, length]);
    const long = Buffer.alloc(length < 65536 ? 4 : 10);
    long[0] = 128 | code;
    if (length < 65536) {
        long[1] = 126;
        long.writeUInt16BE(length, 2);
    } else {
        long[1] = 127;
        long.writeBigUInt64BE(BigInt(length), 2);
    }
    return long;
}
