/** What the page and its worker say to each other. */

import type { Found, Settings } from "./detector/detector";

/** To the worker. Each job has a number; a newer detection, or another field, stops the one before. */
export type Request =
    | { readonly kind: "open"; readonly job: number; readonly file: Blob }
    | { readonly kind: "detect"; readonly job: number; readonly micronsPerPixel: number };

/** From the worker. */
export type Reply =
    | { readonly kind: "ready"; readonly settings: Settings; readonly threads: number }
    | {
          readonly kind: "opened";
          readonly job: number;
          readonly bitmap: ImageBitmap;
          readonly micronsPerPixel: number | null;
          /** Share of the pixels. */
          readonly transparent: number;
      }
    | { readonly kind: "loading"; readonly done: number; readonly total: number }
    | { readonly kind: "scoring"; readonly job: number; readonly done: number; readonly total: number }
    | { readonly kind: "found"; readonly job: number; readonly found: Found }
    | { readonly kind: "failed"; readonly job: number | null; readonly reason: string };
