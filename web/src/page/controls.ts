/** What a person can press, drop and paste, and what it does. */

import type { App } from "./app";
import { elements } from "./elements";

/** Connect the buttons, the keys and the ways to open a file with the page. */
export function connect(app: App): void {
    connectFiles(app);
    connectButtons(app);
    document.addEventListener("keydown", (event) => {
        if (press(app, event)) event.preventDefault();
    });
    globalThis.addEventListener("beforeunload", (event) => {
        if (app.marking.isUnsaved) event.preventDefault();
    });
}

function connectFiles(app: App): void {
    const { stage, file, camera } = elements;
    elements.open.addEventListener("click", () => file.click());
    elements.photograph.addEventListener("click", () => camera.click());
    for (const input of [file, camera]) {
        input.addEventListener("change", () => {
            app.open(input.files);
            input.value = ""; // so that the same file can be opened again
        });
    }
    document.addEventListener("dragover", (event) => {
        event.preventDefault();
        stage.classList.add("dropping");
    });
    document.addEventListener("dragleave", () => stage.classList.remove("dropping"));
    document.addEventListener("drop", (event) => {
        event.preventDefault();
        stage.classList.remove("dropping");
        app.open(event.dataTransfer?.files);
    });
    document.addEventListener("paste", (event) => app.open(event.clipboardData?.files));
}

function connectButtons(app: App): void {
    elements.threshold.addEventListener("input", () => app.marking.show());
    elements.reset.addEventListener("click", () => app.resetThreshold());
    elements.add.addEventListener("click", () => app.marking.toggle("add"));
    elements.ruler.addEventListener("click", () => app.marking.toggle("ruler"));
    elements.undo.addEventListener("click", () => app.marking.undo());
    elements.redo.addEventListener("click", () => app.marking.redo());
    elements.zoomIn.addEventListener("click", () => app.marking.view.zoom(1));
    elements.zoomOut.addEventListener("click", () => app.marking.view.zoom(-1));
    elements.fit.addEventListener("click", () => app.marking.view.fit());
    elements.csv.addEventListener("click", () => app.saveCsv());
    elements.geojson.addEventListener("click", () => app.saveGeoJson());
    elements.about.addEventListener("click", () => elements.aboutDialog.showModal());
    elements.size.addEventListener("submit", (event) => {
        event.preventDefault();
        app.useSize(elements.microns.valueAsNumber, "given");
    });
    elements.line.addEventListener("submit", (event) => {
        event.preventDefault();
        app.useLength(elements.length.valueAsNumber);
    });
}

/** Do what a key says; whether it says anything. */
function press(app: App, event: KeyboardEvent): boolean {
    const isTyping = event.target instanceof HTMLInputElement && event.target.type === "number";
    if (elements.aboutDialog.open || isTyping || event.altKey) return false;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
        if (key === "z" && !event.shiftKey) elements.undo.click();
        else if (key === "y" || key === "z") elements.redo.click();
        else return false;
        return true;
    }
    // Single keys act only where the marks are: whoever speaks to the machine, or types elsewhere, changes nothing.
    if (key === "Escape") {
        app.marking.aim("none");
        return true;
    }
    const isHere = event.target === elements.picture || elements.marks.contains(event.target as Node);
    if (!isHere) return false;
    if (key.startsWith("Arrow")) {
        if (event.target !== elements.picture) return false; // the list scrolls
        const moves: Readonly<Record<string, readonly [number, number]>> = {
            ArrowLeft: [-1, 0],
            ArrowRight: [1, 0],
            ArrowUp: [0, -1],
            ArrowDown: [0, 1],
        };
        app.marking.view.pan(...moves[key]);
        return true;
    }
    const acts: Readonly<Record<string, () => void>> = {
        "+": () => app.marking.view.zoom(1),
        "=": () => app.marking.view.zoom(1),
        "-": () => app.marking.view.zoom(-1),
        "0": () => app.marking.view.fit(),
        n: () => app.marking.step(1),
        p: () => app.marking.step(-1),
        a: () => app.marking.selected && app.marking.accept(app.marking.selected),
        r: () => app.marking.selected && app.marking.reject(app.marking.selected),
        m: () => app.marking.add(app.marking.view.middle),
    };
    acts[key]?.();
    return key in acts;
}
