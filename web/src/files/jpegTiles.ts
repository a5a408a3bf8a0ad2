/** JPEG inside TIFF, by the browser's decoder: it interpolates the colours as libjpeg does, unlike geotiff's own. */

import { addDecoder, BaseDecoder } from "geotiff";
import { decodeByBrowser } from "./browser";
import { blockSize } from "./tiffBlocks";

export const JPEG = 7; // number of the compression
const RGB = 2; // number of the photometric interpretation

type Parameters = ConstructorParameters<typeof BaseDecoder>[0] & {
    readonly tables: Uint8Array | null;
    readonly isRgb: boolean;
};

class BrowserJpeg extends BaseDecoder {
    readonly #tables: Uint8Array | null;
    readonly #isRgb: boolean;

    constructor(parameters: Parameters) {
        super(parameters);
        this.#tables = parameters.tables;
        this.#isRgb = parameters.isRgb;
    }

    /** Decode a strip or tile; its samples are red, green and blue, whatever the file stores. */
    override async decodeBlock(block: ArrayBufferLike): Promise<ArrayBufferLike> {
        const tables = this.#tables ? this.#tables.subarray(2, -2) : new Uint8Array(); // without start and end
        // Adobe's marker says whether the colours are RGB or YCbCr.
        const adobe = [
            0xff,
            0xee,
            0,
            14,
            ...new TextEncoder().encode("Adobe"),
            0,
            100,
            0,
            0,
            0,
            0,
            this.#isRgb ? 0 : 1,
        ];
        const start = Uint8Array.from([0xff, 0xd8, ...adobe, ...tables]);
        const rest = new Uint8Array(block).slice(2);
        const { data } = await decodeByBrowser(new Blob([start, rest], { type: "image/jpeg" }));
        const rgb = new Uint8Array((data.length / 4) * 3);
        for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
            rgb[to] = data[from];
            rgb[to + 1] = data[from + 1];
            rgb[to + 2] = data[from + 2];
        }
        return rgb.buffer;
    }
}

addDecoder(
    JPEG,
    async () => BrowserJpeg as unknown as typeof BaseDecoder,
    async (directory): Promise<Parameters> => {
        const tables = directory.hasTag("JPEGTables") ? await directory.loadValue("JPEGTables") : null;
        return {
            ...(await blockSize(directory)),
            planarConfiguration: 1,
            bitsPerSample: [8, 8, 8],
            predictor: 1,
            tables: tables ? Uint8Array.from(tables as ArrayLike<number>) : null,
            isRgb: Number(await directory.loadValue("PhotometricInterpretation")) === RGB,
        };
    },
    false,
);
