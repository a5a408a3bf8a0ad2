/** The line and the bar that say what happens. */

import { elements } from "./elements";

/** Show a line about what happens, or about what is wrong. */
export function say(text: string, isError = false): void {
    if (elements.status.textContent !== text) elements.status.textContent = text; // else screen readers repeat it
    elements.status.classList.toggle("error", isError);
}

/** Show how far something is; with nothing done, nobody knows how long it takes. A quiet one leaves the line alone. */
export function showProgress(what: string, done: number, total: number, isQuiet = false): void {
    elements.progress.hidden = done >= total;
    if (done > 0) elements.progress.value = done / total;
    else elements.progress.removeAttribute("value");
    if (done < total && !isQuiet) say(`${what} …`);
}
