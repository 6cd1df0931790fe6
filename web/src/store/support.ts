// Whether the browser has what the page is built on.

/** What is lacking, in words; null when nothing is. */
export function lacking(): string | null {
    if (typeof WebSocket === "undefined") return "WebSockets";
    if (typeof ResizeObserver === "undefined") return "ResizeObserver";
    if (typeof HTMLDialogElement === "undefined" || typeof HTMLDialogElement.prototype.showModal !== "function") return "dialogs";
    if (typeof BigInt === "undefined") return "64-bit integers";
    return null;
}
