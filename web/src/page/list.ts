/** The list of marks: a small picture of each, its probability, and buttons to accept and reject it. */

import type { Mark } from "../field/marks";

const SIDE = 56; // px of a small picture
const SHOWN_UM = 32; // its side in the field
const MOST = 200;

/** What a person does in the list. */
export interface Actions {
    select(mark: Mark): void;
    accept(mark: Mark): void;
    reject(mark: Mark): void;
}

/** A field as the list needs it. */
export interface Field {
    readonly bitmap: ImageBitmap;
    readonly micronsPerPixel: number;
}

const shownMarks = new WeakMap<Element, Mark>(); // of each item, as it is now

/** Fill the list; items that stay keep their elements, so that the focus stays, too. */
export function fillList(
    list: HTMLElement,
    field: Field,
    marks: readonly Mark[],
    selected: Mark | null,
    actions: Actions,
): void {
    const known = new Map([...list.children].map((item) => [(item as HTMLElement).dataset.key, item as HTMLElement]));
    const items = marks.slice(0, MOST).map((mark, number) => {
        const item = known.get(mark.id) ?? makeItem(field, mark, actions);
        shownMarks.set(item, mark);
        item.dataset.state = mark.state;
        const [open, accept, reject] = item.querySelectorAll("button");
        open.setAttribute("aria-label", label(mark, number + 1));
        if (mark.id === selected?.id) open.setAttribute("aria-current", "true");
        else open.removeAttribute("aria-current");
        accept.setAttribute("aria-pressed", String(mark.state === "accepted" || mark.state === "added"));
        reject.setAttribute("aria-pressed", String(mark.state === "rejected"));
        return item;
    });
    const rest = document.createElement("li");
    rest.textContent = `and ${marks.length - MOST} less probable ones`;
    const focused = document.activeElement;
    const shown = marks.length > MOST ? [...items, rest] : items;
    const isSame = shown.length === list.children.length && shown.every((item, index) => item === list.children[index]);
    if (!isSame) list.replaceChildren(...shown);
    if (focused instanceof HTMLElement && list.contains(focused)) focused.focus({ preventScroll: true });
}

/** What a screen reader says of a mark. */
export function label(mark: Mark, number: number): string {
    const probability = mark.probability === null ? "" : `, probability ${mark.probability.toFixed(3)}`;
    return `Mark ${number}${probability}, ${mark.state}, row ${Math.round(mark.row)}, column ${Math.round(mark.col)}`;
}

function makeItem(field: Field, mark: Mark, actions: Actions): HTMLElement {
    const item = document.createElement("li");
    item.dataset.key = mark.id;
    const act = (what: (mark: Mark) => void) => () => what(shownMarks.get(item) ?? mark);
    const open = button("", act(actions.select));
    open.className = "mark";
    const text = document.createElement("span");
    text.textContent = mark.probability === null ? "added" : mark.probability.toFixed(3);
    open.append(crop(field, mark), text);
    const reject = mark.probability === null ? "Remove" : "Reject";
    item.append(open, button("Accept", act(actions.accept)), button(reject, act(actions.reject)));
    return item;
}

function button(name: string, act: () => void): HTMLButtonElement {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = name;
    made.addEventListener("click", act);
    return made;
}

function crop({ bitmap, micronsPerPixel }: Field, { row, col }: Mark): HTMLCanvasElement {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const side = SHOWN_UM / micronsPerPixel;
    const context = canvas.getContext("2d");
    context?.drawImage(bitmap, col + 0.5 - side / 2, row + 0.5 - side / 2, side, side, 0, 0, SIDE, SIDE);
    return canvas;
}
