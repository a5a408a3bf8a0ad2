/** LZW inside TIFF. geotiff's own decoder has too small a table: the codes 4093 to 4095 make it run for ever. */

import { addDecoder, BaseDecoder } from "geotiff";
import { blockSize } from "./tiffBlocks";

export const LZW = 5; // number of the compression
const CLEAR = 256;
const END = 257;
const MOST_CODES = 4096;
const MOST_BITS = 12;

type Parameters = ConstructorParameters<typeof BaseDecoder>[0] & { readonly bytes: number };

class Lzw extends BaseDecoder {
    readonly #bytes: number;

    constructor(parameters: Parameters) {
        super(parameters);
        this.#bytes = parameters.bytes;
    }

    override decodeBlock(block: ArrayBufferLike): ArrayBufferLike {
        return decodeLzw(new Uint8Array(block), this.#bytes).buffer;
    }
}

/**
 * Decode a strip or tile.
 *
 * Source of the format: "TIFF Revision 6.0", section 13.
 *
 * @param packed the codes, the highest bit first.
 * @param most bytes that the strip may have.
 * @throws Error it is damaged: it has no end, more bytes, or unknown codes.
 */
export function decodeLzw(packed: Uint8Array, most: number): Uint8Array<ArrayBuffer> {
    const found = new Uint8Array(most);
    // A code above 257 stands for the string of an earlier code, and one byte more.
    const before = new Uint16Array(MOST_CODES);
    const last = new Uint8Array(MOST_CODES);
    const lengths = new Uint16Array(MOST_CODES).fill(1, 0, 256);
    for (let code = 0; code < 256; code++) last[code] = code;
    let [next, width, previous, length, bits, waiting] = [END + 1, 9, -1, 0, 0, 0];
    for (const byte of packed) {
        waiting = (waiting << 8) | byte;
        bits += 8;
        if (bits < width) continue;
        bits -= width;
        const code = waiting >>> bits;
        waiting &= (1 << bits) - 1;
        if (code === END) return found.slice(0, length);
        if (code === CLEAR) {
            [next, width, previous] = [END + 1, 9, -1];
            continue;
        }
        const isNew = code === next && previous >= 0;
        if (!isNew && (code >= next || (code >= 256 && previous < 0))) throw new Error("unknown code");
        const source = isNew ? previous : code;
        const end = length + lengths[source] + Number(isNew);
        if (end > most) throw new Error("too many bytes");
        let first = source;
        for (let place = length + lengths[source] - 1; place >= length; place--) {
            found[place] = last[first];
            if (place > length) first = before[first];
        }
        if (isNew) found[end - 1] = last[first];
        length = end;
        if (previous >= 0 && next < MOST_CODES) {
            before[next] = previous;
            last[next] = last[first];
            lengths[next] = lengths[previous] + 1;
            next++;
        }
        if (next === (1 << width) - 1 && width < MOST_BITS) width++;
        previous = code;
    }
    throw new Error("no end");
}

addDecoder(
    LZW,
    async () => Lzw as unknown as typeof BaseDecoder,
    async (directory): Promise<Parameters> => {
        const number = async (tag: "PlanarConfiguration" | "Predictor" | "SamplesPerPixel") =>
            directory.hasTag(tag) ? Number(await directory.loadValue(tag)) : 1;
        const { tileWidth, tileHeight } = await blockSize(directory);
        const planarConfiguration = await number("PlanarConfiguration");
        const samples = planarConfiguration === 2 ? 1 : await number("SamplesPerPixel");
        const predictor = await number("Predictor");
        const bytes = tileWidth * tileHeight * samples;
        return { tileWidth, tileHeight, planarConfiguration, bitsPerSample: Array(samples).fill(8), predictor, bytes };
    },
    false,
);
