/** The page: opens fields, has the worker find their mitoses, and saves what a person makes of them. */

import { checkPixels, checkSize, type Found, type Settings } from "../detector/detector";
import { asCsv, asGeoJson } from "../files/writing";
import type { Reply, Request } from "../messages";
import { fillAbout } from "./about";
import { elements } from "./elements";
import { Marking } from "./marking";
import { say, showProgress } from "./status";
import type { Line } from "./view";

const DIGITS = 6; // of a pixel size

export class App {
    readonly marking = new Marking((line) => this.#measure(line));
    readonly #worker = new Worker(new URL("../worker.ts", import.meta.url), { type: "module" });
    #settings: Settings | null = null;
    #line: Line | null = null;
    #job = 0;
    #reading = 0; // numbers of the newest jobs
    #detecting = 0;
    #opening = ""; // name of the newest file
    #isNews = false; // whether the line says something of that file, which progress must not replace

    constructor() {
        this.#worker.addEventListener("message", (event: MessageEvent<Reply>) => this.#take(event.data));
        this.#worker.addEventListener("error", () => say("This browser cannot run the detector.", true));
        showProgress("Loading the network", 0, 1);
    }

    /** Whether a field is open, or is being read. */
    get isOpen(): boolean {
        return this.#opening !== "";
    }

    /** Open a file in place of the field that is open; several files at once are rejected. */
    open(files: FileList | null | undefined): void {
        const file = files?.[0];
        if (!file) return;
        if (files.length > 1) {
            say(`${files.length} files: the page opens one field at a time.`, true);
            this.#isNews = true; // more than the progress of the open field
            return;
        }
        const question = `The corrections of ${this.marking.field?.name} are not saved. Open another field?`;
        if (this.marking.isUnsaved && !confirm(question)) return;
        this.#opening = file.name;
        say(`Reading ${file.name} …`);
        this.#isNews = true;
        this.#reading = ++this.#job;
        this.#ask({ kind: "open", job: this.#reading, file });
    }

    #ask(request: Request): void {
        this.#worker.postMessage(request);
    }

    #take(reply: Reply): void {
        if (reply.kind === "loading") {
            showProgress("Loading the network", reply.done, reply.total, this.#opening !== "");
        } else if (reply.kind === "ready") {
            this.#ready(reply.settings, reply.threads);
        } else if (reply.kind === "failed") {
            this.#failed(reply.job, reply.reason);
        } else if (reply.kind === "opened") {
            if (reply.job === this.#reading) this.#opened(reply);
            else reply.bitmap.close();
        } else if (reply.job === this.#detecting) {
            if (reply.kind === "scoring") showProgress("Scoring candidates", reply.done, reply.total, this.#isNews);
            else this.#found(reply.found);
        }
    }

    #ready(settings: Settings, threads: number): void {
        this.#settings = this.marking.settings = settings;
        elements.threshold.value = String(settings.threshold);
        fillAbout(settings, threads);
        const note = settings.origin.synthetic ? "Trained on synthetic data: for trying out only." : "Ready.";
        if (!this.#opening) say(note);
        elements.microns.value ||= String(settings.origin.microns_per_pixel); // for a field that is open already
        this.marking.show();
    }

    #failed(job: number | null, reason: string): void {
        if (job === null) say(`The detector cannot be loaded: ${reason}.`, true);
        else if (job === this.#reading) say(`${this.#opening}: ${reason}.`, true);
        else if (job === this.#detecting) say(`${this.marking.field?.name}: ${reason}.`, true);
        else return;
        if (job !== this.#reading) elements.progress.hidden = true;
    }

    #opened({ bitmap, micronsPerPixel, transparent }: Extract<Reply, { kind: "opened" }>): void {
        this.#detecting = 0;
        this.#line = null;
        this.marking.open(this.#opening, bitmap, transparent);
        elements.hint.hidden = true;
        elements.progress.hidden = true;
        elements.size.hidden = false;
        if (micronsPerPixel !== null) {
            this.#detect(micronsPerPixel, "from the file");
            return;
        }
        elements.microns.value = String(this.#settings?.origin.microns_per_pixel ?? "");
        elements.sizeFrom.textContent = "The file gives none: enter it, or measure a known length with the ruler.";
        say(`${this.#opening} is open. What is its pixel size?`);
        elements.microns.focus();
    }

    #detect(micronsPerPixel: number, from: string): void {
        elements.microns.value = shownSize(micronsPerPixel);
        elements.sizeFrom.textContent = from;
        this.marking.take(null);
        this.#isNews = false;
        showProgress("Looking for mitoses", 0, 1);
        this.#detecting = ++this.#job;
        this.#ask({ kind: "detect", job: this.#detecting, micronsPerPixel });
    }

    #found(found: Found): void {
        const { field } = this.marking;
        if (!field || !this.#settings) return;
        elements.progress.hidden = true;
        const notes = [`${field.name}: ${found.area.toFixed(3)} mm², ${found.candidates.length} candidates.`];
        if (field.transparent > 0) {
            const share = field.transparent < 0.01 ? "<1" : (100 * field.transparent).toFixed(0);
            notes.push(`${share}% of it is transparent; this part has no candidates and does not count as area.`);
        }
        if (this.#settings.extract.stain !== "none" && !found.normalised) {
            notes.push("Too little tissue for stain normalisation; left unchanged.");
        }
        if (this.#settings.origin.synthetic) notes.push("The detector is trained on synthetic data.");
        if (!this.#isNews) say(notes.join(" "));
        this.marking.take(found);
    }

    /** Use the detector's own threshold again. */
    resetThreshold(): void {
        elements.threshold.value = String(this.#settings?.threshold ?? "");
        this.marking.show();
    }

    #measure(line: Line): void {
        this.#line = line;
        elements.line.hidden = false;
        elements.length.focus();
    }

    /** Take the pixel size from the ruler's line, which is so long, um. */
    useLength(microns: number): void {
        if (!this.#line) return;
        const [start, end] = this.#line;
        const pixels = Math.hypot(end.row - start.row, end.col - start.col);
        if (pixels < 1) say("The line has no length: draw it again.", true);
        else if (this.useSize(microns / pixels, "measured with the ruler")) this.marking.aim("none");
    }

    /** Detect with another pixel size, um; whether that can be done. */
    useSize(microns: number, from: string): boolean {
        const { field } = this.marking;
        if (!field) return false;
        if (!this.#settings) {
            say("The detector is still loading.");
            return false;
        }
        try {
            checkPixels(this.#settings, microns);
            checkSize(this.#settings, field.bitmap, microns);
        } catch (error) {
            say(`${field.name}: ${(error as Error).message}.`, true);
            if (field.found) elements.microns.value = shownSize(field.found.micronsPerPixel);
            return false;
        }
        const question = "Detecting again removes the corrections, which are not saved. Go on?";
        if (this.marking.isUnsaved && !confirm(question)) return false;
        this.#detect(microns, from);
        return true;
    }

    saveCsv(): void {
        this.#save("csv", "text/csv", asCsv(this.marking.marks()));
    }

    saveGeoJson(): void {
        const { field } = this.marking;
        if (!field?.found) return;
        const content = asGeoJson(this.marking.marks(), field.bitmap, field.found.micronsPerPixel);
        this.#save("geojson", "application/geo+json", content);
    }

    #save(suffix: string, type: string, content: string): void {
        const { field } = this.marking;
        if (!field) return;
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([content], { type }));
        link.download = `${field.name.replace(/\.[^.]*$/, "")}_mitoses.${suffix}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
        field.saved = field.marks.version;
        say(`${link.download} is saved with your downloads.`);
    }
}

function shownSize(microns: number): string {
    return String(Number(microns.toFixed(DIGITS)));
}
