// The token: it comes behind `#token=`, is kept for this tab, and leaves the address bar before anything else runs.

const KEY = "memfrag.token";

/** A token in the fragment, and the fragment without it. */
export function takeToken(hash: string): { token: string | null; rest: string } {
    const parts = hash.replace(/^#/, "").split("&").filter((part) => part !== "");
    const found = parts.find((part) => part.startsWith("token="));
    const rest = parts.filter((part) => !part.startsWith("token=")).join("&");
    const token = found ? decodeURIComponent(found.slice("token=".length)) : null;
    // A subprotocol may hold no other characters, and a server makes no other token.
    return { token: token !== null && /^[A-Za-z0-9_-]{16,256}$/.test(token) ? token : null, rest };
}

/** The tab's token; null when it has none. Moves one from the address bar into the tab's storage. */
export function tabToken(): string | null {
    const { token, rest } = takeToken(location.hash);
    if (location.hash.includes("token=")) {
        history.replaceState(null, "", `${location.pathname}${location.search}${rest ? `#${rest}` : ""}`);
    }
    if (token === null) return sessionStorage.getItem(KEY);
    keepToken(token);
    return token;
}

/** Keeps a token for this tab. */
export function keepToken(token: string): void {
    sessionStorage.setItem(KEY, token);
}
