/** The size of a pixel, as image files say it; the rules of src/mitoscope/datasets/readers/pixel_size.py. */

const FINEST = 0.1; // um; outside, it is the resolution of a screen or a printer
const COARSEST = 1;
const UNEQUAL = 0.01; // of both axes

export const INCH = 25400; // um
export const CENTIMETRE = 1e4;
export const METRE = 1e6;

// um per unit, in lower case. ImageJ writes the micro sign as \u00B5.
const UNITS: Readonly<Record<string, number>> = {
    um: 1,
    "\u00b5m": 1,
    "\u03bcm": 1,
    "\\u00b5m": 1,
    micron: 1,
    microns: 1,
    micrometer: 1,
    micrometre: 1,
    nm: 1e-3,
    mm: 1e3,
    cm: CENTIMETRE,
    m: METRE,
    inch: INCH,
    in: INCH,
};

/** Return the size of a pixel, um, if `x` and `y` are nearly equal and a microscope's; else null. */
export function plausible(x: number, y: number): number | null {
    const inRange = x >= FINEST && x <= COARSEST && y >= FINEST && y <= COARSEST;
    return inRange && Math.abs(x / y - 1) <= UNEQUAL ? (x + y) / 2 : null;
}

/** Return the size of a pixel, um, from pixels per `unit` um along both axes, if it is plausible. */
export function fromResolution(x: number, y: number, unit: number): number | null {
    return x > 0 && y > 0 ? plausible(unit / x, unit / y) : null;
}

/** Return the size of a pixel, um, from the description in a TIFF file, if it is plausible; `x` and `y` as above. */
export function fromDescription(description: string, x: number, y: number): number | null {
    if (description.startsWith("ImageJ=")) {
        const unit = /^unit=(.+)$/m.exec(description)?.[1]?.trim().toLowerCase();
        const microns = unit === undefined ? undefined : UNITS[unit];
        return microns === undefined ? null : fromResolution(x, y, microns);
    }
    const pixels = /<(?:\w+:)?Pixels\b[^<>]*>/.exec(description); // OME-XML
    if (pixels) return plausible(omeSize(pixels[0], "X"), omeSize(pixels[0], "Y"));
    // Aperio writes MPP, of the slide as it was scanned: "46920x33014 -> 1024x732" is a reduced copy.
    const aperio = /\bMPP\s*=\s*(\d+\.?\d*)/.exec(description);
    return aperio && !description.includes("->") ? plausible(Number(aperio[1]), Number(aperio[1])) : null;
}

function omeSize(pixels: string, axis: "X" | "Y"): number {
    const size = new RegExp(`\\bPhysicalSize${axis}\\s*=\\s*["']([\\d.eE+-]+)["']`).exec(pixels);
    const unit = new RegExp(`\\bPhysicalSize${axis}Unit\\s*=\\s*["']([^"']*)["']`).exec(pixels);
    const name = (unit?.[1] ?? "um").toLowerCase().replace(/&#(?:181|xb5|956|x3bc);/, "\u00b5");
    return size ? Number(size[1]) * (UNITS[name] ?? 0) : 0;
}
