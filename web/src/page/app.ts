/** The state of the page: the field that is open, what is found in it, and what a person makes of that. */

import { checkPixels, checkSize, type Found, type Settings } from "../detector/detector";
import type { Point } from "../detector/image";
import { type HotSpot, hotSpot } from "../field/hotSpot";
import { type Mark, Marks, mitoses } from "../field/marks";
import { asCsv, asGeoJson } from "../files/writing";
import type { Reply, Request } from "../messages";
import { fillAbout } from "./about";
import { elements } from "./elements";
import { fillList } from "./list";
import { type Line, View } from "./view";

const HOT_SPOT_MM2 = 2; // about ten high-power fields, the area of a mitotic count
const NUCLEUS_UM = 5; // radius
const DIGITS = 6; // of a pixel size

/** A field that is open; nothing is found before its pixel size is known. */
interface Field {
    readonly name: string;
    readonly bitmap: ImageBitmap;
    /** Share of the pixels. */
    readonly transparent: number;
    found: Found | null;
    marks: Marks;
    isSaved: boolean;
}

export class App {
    readonly view = new View(elements.picture, {
        tap: (point, distance) => this.#tap(point, distance),
        measure: (line) => this.#measure(line),
    });
    readonly #worker = new Worker(new URL("../worker.ts", import.meta.url), { type: "module" });
    #settings: Settings | null = null;
    #field: Field | null = null;
    #selected: Mark | null = null;
    #line: Line | null = null;
    #spot: { readonly of: string; readonly found: HotSpot | null } = { of: "", found: null };
    #job = 0;
    #reading = 0; // numbers of the newest jobs
    #detecting = 0;
    #opening = ""; // name of the newest file

    constructor() {
        this.#worker.addEventListener("message", (event: MessageEvent<Reply>) => this.#take(event.data));
        this.#worker.addEventListener("error", () => say("This browser cannot run the detector.", true));
        this.show();
    }

    /** Whether a field is open, or is being read. */
    get isOpen(): boolean {
        return this.#opening !== "";
    }

    /** Whether there are corrections that are not exported. */
    get isUnsaved(): boolean {
        const field = this.#field;
        return field ? field.marks.canUndo && !field.isSaved : false;
    }

    get selected(): Mark | null {
        return this.#selected;
    }

    // Opening a field

    /** Open a file in place of the field that is open. */
    open(file: File | undefined): void {
        if (!file) return;
        const question = `The corrections of ${this.#field?.name} are not exported. Open another field?`;
        if (this.isUnsaved && !confirm(question)) return;
        this.#opening = file.name;
        say(`Reading ${file.name} …`);
        this.#reading = ++this.#job;
        this.#ask({ kind: "open", job: this.#reading, file });
    }

    #ask(request: Request): void {
        this.#worker.postMessage(request);
    }

    #take(reply: Reply): void {
        if (reply.kind === "loading") {
            if (!this.#opening) showProgress("Loading the network", reply.done, reply.total);
        } else if (reply.kind === "ready") {
            this.#ready(reply.settings, reply.threads);
        } else if (reply.kind === "failed") {
            this.#failed(reply.job, reply.reason);
        } else if (reply.kind === "opened") {
            if (reply.job === this.#reading) this.#opened(reply);
            else reply.bitmap.close();
        } else if (reply.job === this.#detecting) {
            if (reply.kind === "scoring") showProgress("Scoring candidates", reply.done, reply.total);
            else this.#found(reply.found);
        }
    }

    #ready(settings: Settings, threads: number): void {
        this.#settings = settings;
        elements.threshold.value = String(settings.threshold);
        fillAbout(settings, threads);
        const note = settings.origin.synthetic ? "Trained on synthetic data: for trying out only." : "Ready.";
        if (!this.#opening) say(note);
        if (this.#field && !elements.microns.value) elements.microns.value = String(settings.origin.microns_per_pixel);
        this.show();
    }

    #failed(job: number | null, reason: string): void {
        if (job === null) say(`The detector cannot be loaded: ${reason}.`, true);
        else if (job === this.#reading) say(`${this.#opening}: ${reason}.`, true);
        else if (job === this.#detecting) say(`${this.#field?.name}: ${reason}.`, true);
        else return;
        if (job !== this.#reading) elements.progress.hidden = true;
    }

    #opened({ bitmap, micronsPerPixel, transparent }: Extract<Reply, { kind: "opened" }>): void {
        const marks = new Marks([]);
        this.#field = { name: this.#opening, bitmap, transparent, found: null, marks, isSaved: true };
        this.#selected = null;
        this.#detecting = 0;
        this.aim("none");
        elements.hint.hidden = true;
        elements.progress.hidden = true;
        elements.size.hidden = false;
        this.view.open(bitmap);
        if (micronsPerPixel !== null) {
            this.#detect(micronsPerPixel, "from the file");
            return;
        }
        elements.microns.value = String(this.#settings?.origin.microns_per_pixel ?? "");
        elements.sizeFrom.textContent = "The file gives none: enter it, or measure a known length with the ruler.";
        say(`${this.#opening} is open. What is its pixel size?`);
        this.show();
        elements.microns.focus();
    }

    #detect(micronsPerPixel: number, from: string): void {
        if (!this.#field) return;
        this.#field.found = null;
        elements.microns.value = String(Number(micronsPerPixel.toFixed(DIGITS)));
        elements.sizeFrom.textContent = from;
        this.show();
        showProgress("Looking for mitoses", 0, 1);
        this.#detecting = ++this.#job;
        this.#ask({ kind: "detect", job: this.#detecting, micronsPerPixel });
    }

    #found(found: Found): void {
        if (!this.#field || !this.#settings) return;
        this.#field.marks = new Marks(found.candidates);
        this.#field.found = found;
        elements.progress.hidden = true;
        const notes = [`${this.#field.name}: ${found.area.toFixed(3)} mm², ${found.candidates.length} candidates.`];
        const { transparent } = this.#field;
        if (transparent > 0) {
            const share = transparent < 0.01 ? "<1" : (100 * transparent).toFixed(0);
            notes.push(`${share}% of it is transparent; this part has no candidates and does not count as area.`);
        }
        if (this.#settings.extract.stain !== "none" && !found.normalised) {
            notes.push("Too little tissue for stain normalisation; left unchanged.");
        }
        if (this.#settings.origin.synthetic) notes.push("The detector is trained on synthetic data.");
        say(notes.join(" "));
        this.show();
    }

    // Showing what is found

    #marks(): Mark[] {
        return this.#field?.found ? this.#field.marks.from(Number(elements.threshold.value)) : [];
    }

    /** Use the detector's own threshold again. */
    resetThreshold(): void {
        elements.threshold.value = String(this.#settings?.threshold ?? "");
        this.show();
    }

    /** Show everything as it is now. */
    show(): void {
        const found = this.#field?.found ?? null;
        const marks = this.#marks();
        this.#selected = marks.find((mark) => mark.id === this.#selected?.id) ?? null;
        const counted = mitoses(marks);
        const spot = this.#hotSpot(counted);
        elements.count.textContent = found ? String(counted.length) : "–";
        elements.density.textContent = found ? (counted.length / found.area).toFixed(1) : "–";
        elements.hotSpot.textContent = spot ? String(spot.count) : "–";
        elements.hotSpotName.textContent = found && !spot ? "field < 2 mm²" : "densest 2 mm²";
        elements.thresholdValue.textContent = this.#settings ? Number(elements.threshold.value).toFixed(3) : "";
        elements.undo.disabled = !this.#field?.marks.canUndo;
        elements.redo.disabled = !this.#field?.marks.canRedo;
        const { zoomIn, zoomOut, fit, ruler, add, csv, geojson, threshold, reset } = elements;
        for (const element of [zoomIn, zoomOut, fit, ruler]) element.disabled = !this.#field;
        for (const element of [add, csv, geojson, threshold, reset]) element.disabled = !found;
        const radius = NUCLEUS_UM / (found?.micronsPerPixel ?? this.#settings?.origin.microns_per_pixel ?? 0.25);
        this.view.show({ marks, selected: this.#selected, hotSpot: spot, radius, isAdding: this.#aimsAt("add") });
        if (!this.#field || !found) {
            elements.marks.replaceChildren();
            return;
        }
        const shown = { bitmap: this.#field.bitmap, micronsPerPixel: found.micronsPerPixel };
        fillList(elements.marks, shown, marks, this.#selected, {
            select: (mark) => this.#goTo(mark),
            accept: (mark) => this.accept(mark),
            reject: (mark) => this.reject(mark),
        });
    }

    /** Where the mitoses are densest; computed when they change, and only if so much of the field is opaque. */
    #hotSpot(counted: readonly Mark[]): HotSpot | null {
        const found = this.#field?.found;
        if (!this.#field || !found || found.area < HOT_SPOT_MM2) return null;
        const of = `${found.micronsPerPixel} ${counted.map((mark) => mark.id).join()}`;
        if (of !== this.#spot.of) {
            this.#spot = { of, found: hotSpot(counted, this.#field.bitmap, found.micronsPerPixel, HOT_SPOT_MM2) };
        }
        return this.#spot.found;
    }

    // Correcting

    /** Choose what a tap or a line on the picture does, besides moving it. */
    aim(at: "none" | "add" | "ruler"): void {
        this.#line = null;
        elements.line.hidden = true;
        elements.add.setAttribute("aria-pressed", String(at === "add"));
        elements.ruler.setAttribute("aria-pressed", String(at === "ruler"));
        elements.stage.classList.toggle("aiming", at !== "none");
        this.view.isMeasuring = at === "ruler";
        this.view.clearLine();
        if (at === "ruler") say("Draw a line along something of known length, such as the scale bar.");
        if (at === "add") say("Tap on a mitosis that the detector missed.");
        this.show();
    }

    /** Aim at something, or at nothing if it is aimed at already. */
    toggle(at: "add" | "ruler"): void {
        this.aim(this.#aimsAt(at) ? "none" : at);
    }

    #aimsAt(at: "add" | "ruler"): boolean {
        return elements[at].getAttribute("aria-pressed") === "true";
    }

    #tap(point: Point, distance: number): void {
        if (!this.#field?.found) return;
        if (this.#aimsAt("add")) {
            this.add(point);
            return;
        }
        const away = (mark: Mark) => Math.hypot(mark.row - point.row, mark.col - point.col);
        const near = this.#marks().filter((mark) => away(mark) <= distance);
        const [mark] = near.sort((one, other) => away(one) - away(other));
        if (mark && mark.id === this.#selected?.id) {
            if (mark.state === "detected") this.accept(mark);
            else this.reject(mark); // what is rejected is detected again
        } else {
            this.#selected = mark ?? null;
            if (mark) say("Tap it again to accept it, and once more to reject it.");
            this.show();
        }
        elements.marks.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    }

    /** Add a mitosis; where the detector has a candidate, that one is accepted. */
    add(point: Point): void {
        if (!this.#field?.found) return;
        const { width, height } = this.#field.bitmap;
        if (point.row < 0 || point.col < 0 || point.row > height - 1 || point.col > width - 1) return;
        const reach = NUCLEUS_UM / this.#field.found.micronsPerPixel;
        this.#change((marks) => {
            this.#selected = marks.add(point, reach);
        });
    }

    /** Accept a mark, or take that back. */
    accept(mark: Mark): void {
        this.#change((marks) => marks.set(mark, mark.state === "accepted" ? "detected" : "accepted"));
    }

    /** Reject a mark, or take that back. */
    reject(mark: Mark): void {
        this.#change((marks) => marks.set(mark, mark.state === "rejected" ? "detected" : "rejected"));
    }

    undo(): void {
        this.#change((marks) => marks.undo());
    }

    redo(): void {
        this.#change((marks) => marks.redo());
    }

    /** Change the marks, which are then not exported yet. */
    #change(act: (marks: Marks) => void): void {
        if (!this.#field) return;
        act(this.#field.marks);
        this.#field.isSaved = false;
        this.show();
    }

    /** Go to the next mark, or with -1 to the previous one. */
    step(by: 1 | -1): void {
        const marks = this.#marks();
        if (!marks.length) return;
        const at = marks.findIndex((mark) => mark.id === this.#selected?.id);
        const first = by > 0 ? 0 : marks.length - 1;
        this.#goTo(marks[at < 0 ? first : (at + by + marks.length) % marks.length]);
    }

    #goTo(mark: Mark): void {
        this.#selected = mark;
        this.view.goTo(mark);
        this.show();
    }

    // The pixel size

    #measure(line: Line): void {
        this.#line = line;
        elements.line.hidden = false;
        elements.length.focus();
    }

    /** Take the pixel size from the ruler's line, which is so long, um. */
    useLength(microns: number): void {
        if (!this.#line) return;
        const [start, end] = this.#line;
        this.aim("none");
        this.useSize(microns / Math.hypot(end.row - start.row, end.col - start.col), "measured with the ruler");
    }

    /** Detect with another pixel size, um. */
    useSize(microns: number, from: string): void {
        if (!this.#field) return;
        if (!this.#settings) {
            say("The detector is still loading.");
            return;
        }
        try {
            checkPixels(this.#settings, microns);
            checkSize(this.#settings, this.#field.bitmap, microns);
        } catch (error) {
            say(`${this.#field.name}: ${(error as Error).message}.`, true);
            return;
        }
        const question = "Detecting again removes the corrections, which are not exported. Go on?";
        if (this.isUnsaved && !confirm(question)) return;
        this.#field.isSaved = true;
        this.#detect(microns, from);
    }

    // Exporting

    saveCsv(): void {
        this.#save("csv", "text/csv", asCsv(this.#marks()));
    }

    saveGeoJson(): void {
        if (!this.#field?.found) return;
        const content = asGeoJson(this.#marks(), this.#field.bitmap, this.#field.found.micronsPerPixel);
        this.#save("geojson", "application/geo+json", content);
    }

    #save(suffix: string, type: string, content: string): void {
        if (!this.#field) return;
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([content], { type }));
        link.download = `${this.#field.name.replace(/\.[^.]*$/, "")}_mitoses.${suffix}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
        this.#field.isSaved = true;
        say(`${link.download} is saved with your downloads.`);
    }
}

/** Show a line about what happens, or about what is wrong. */
export function say(text: string, isError = false): void {
    if (elements.status.textContent !== text) elements.status.textContent = text; // else screen readers repeat it
    elements.status.classList.toggle("error", isError);
}

function showProgress(what: string, done: number, total: number): void {
    elements.progress.hidden = done >= total;
    if (done > 0) elements.progress.value = done / total;
    else elements.progress.removeAttribute("value"); // nobody knows how long it takes
    if (done < total) say(`${what} …`);
}
