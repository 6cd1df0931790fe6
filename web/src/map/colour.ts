// Colours between colours, evenly to the eye: in CIELAB, where lightness is what people see as lightness.

export type Rgb = readonly [number, number, number];
export type Lab = readonly [number, number, number];

// D65.
const WHITE: Lab = [0.95047, 1, 1.08883];
const DELTA = 6 / 29;

export function parseHex(hex: string): Rgb {
    const value = parseInt(hex.slice(1), 16);
    return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

export function formatRgb([r, g, b]: Rgb): string {
    return `rgb(${r} ${g} ${b})`;
}

function toLinear(channel: number): number {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}

function fromLinear(c: number): number {
    const clamped = Math.min(1, Math.max(0, c));
    return Math.round(255 * (clamped <= 0.0031308 ? 12.92 * clamped : 1.055 * clamped ** (1 / 2.4) - 0.055));
}

export function toLab(rgb: Rgb): Lab {
    const [r, g, b] = [toLinear(rgb[0]), toLinear(rgb[1]), toLinear(rgb[2])];
    const xyz = [
        0.4124564 * r + 0.3575761 * g + 0.1804375 * b,
        0.2126729 * r + 0.7151522 * g + 0.072175 * b,
        0.0193339 * r + 0.119192 * g + 0.9503041 * b,
    ];
    const [x, y, z] = xyz.map((v, i) => {
        const t = v / WHITE[i]!;
        return t > DELTA ** 3 ? Math.cbrt(t) : t / (3 * DELTA ** 2) + 4 / 29;
    }) as [number, number, number];
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

export function fromLab([l, a, b]: Lab): Rgb {
    const y = (l + 16) / 116;
    const [X, Y, Z] = [y + a / 500, y, y - b / 200].map((t, i) => {
        return WHITE[i]! * (t > DELTA ? t ** 3 : 3 * DELTA ** 2 * (t - 4 / 29));
    }) as [number, number, number];
    return [
        fromLinear(3.2404542 * X - 1.5371385 * Y - 0.4985314 * Z),
        fromLinear(-0.969266 * X + 1.8760108 * Y + 0.041556 * Z),
        fromLinear(0.0556434 * X - 0.2040259 * Y + 1.0572252 * Z),
    ];
}

export function mix(from: Rgb, to: Rgb, share: number): Rgb {
    const [a, b] = [toLab(from), toLab(to)];
    return fromLab([a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])]);
}

/** A scale through `stops`, evenly spaced; `share` from 0 to 1. */
export function scale(stops: readonly string[], share: number): Rgb {
    const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
    const below = Math.min(Math.floor(at), stops.length - 2);
    return mix(parseHex(stops[below]!), parseHex(stops[below + 1]!), at - below);
}

/** One 32-bit pixel as it lies in the memory of an ImageData on a little-endian machine, opaque. */
export function pixel([r, g, b]: Rgb): number {
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
