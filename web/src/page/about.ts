/** What the page says of its detector. */

import type { Settings } from "../detector/detector";
import { elements } from "./elements";

/** Fill the dialog. */
export function fillAbout(settings: Settings, threads: number): void {
    const { origin } = settings;
    const facts = {
        Detector: settings.model,
        "SHA-256": settings.detector_sha256,
        Threshold: settings.threshold.toFixed(3),
        "Trained at": `${origin.microns_per_pixel} µm per pixel${origin.synthetic ? ", on synthetic data" : ""}`,
        Network: `${origin.network}, ${settings.network}, ${threads} thread${threads === 1 ? "" : "s"}`,
        Mitoscope: settings.version,
    };
    const parts = Object.entries(facts).flatMap(([name, value]) => {
        const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
        term.textContent = name;
        detail.textContent = value;
        return [term, detail];
    });
    elements.facts.replaceChildren(...parts);
}
