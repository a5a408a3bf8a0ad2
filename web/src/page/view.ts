/** The canvas: a field with its marks, to pan and zoom by mouse, touch and keyboard. */

import { clamp, type Point } from "../detector/image";
import type { HotSpot } from "../field/hotSpot";
import type { Mark } from "../field/marks";
import { drawCross, drawLine, drawMark, drawRectangle } from "./drawing";

const MOST_ZOOM = 40; // screen pixels a pixel
const STEP = 1.25; // of a zoom by key or button
const PAN = 60; // screen pixels of an arrow key
const TAP = 8; // screen pixels that a finger may move in a tap
const REACH = 16; // screen pixels from a mark that a tap still hits

/** What the view shows besides the picture. */
export interface Shown {
    readonly marks: readonly Mark[];
    readonly selected: Mark | null;
    readonly hotSpot: HotSpot | null;
    /** Radius of a nucleus, px of the field. */
    readonly radius: number;
    /** Whether a key would add a mark in the middle. */
    readonly isAdding: boolean;
}

/** A line from one place to another. */
export type Line = readonly [Point, Point];

/** What a person does on the canvas. */
export interface Actions {
    /** A tap, and how far from it a mark may be, px of the field. */
    tap(point: Point, distance: number): void;
    /** A line that was drawn with the ruler. */
    measure(line: Line): void;
}

export class View {
    isMeasuring = false;
    readonly #canvas: HTMLCanvasElement;
    readonly #context: CanvasRenderingContext2D;
    readonly #actions: Actions;
    readonly #fingers = new Map<number, PointerEvent>();
    #bitmap: ImageBitmap | null = null;
    #shown: Shown = { marks: [], selected: null, hotSpot: null, radius: 1, isAdding: false };
    #line: Line | null = null;
    #zoom = 1; // screen pixels per pixel of the field
    #left = 0; // of the field's corner, screen pixels
    #top = 0;
    #moved = 0;
    #isFitted = true;
    #size = { width: 0, height: 0 }; // of the canvas, screen pixels
    #isWaiting = false;

    constructor(canvas: HTMLCanvasElement, actions: Actions) {
        const context = canvas.getContext("2d", { alpha: false });
        if (!context) throw new Error("this browser gives no memory for a picture");
        this.#canvas = canvas;
        this.#context = context;
        this.#actions = actions;
        canvas.addEventListener("pointerdown", (event) => this.#press(event));
        canvas.addEventListener("pointermove", (event) => this.#move(event));
        canvas.addEventListener("pointerup", (event) => this.#release(event));
        canvas.addEventListener("pointercancel", (event) => this.#fingers.delete(event.pointerId));
        canvas.addEventListener("wheel", (event) => this.#turnWheel(event), { passive: false });
        new ResizeObserver(() => this.#resize()).observe(canvas);
    }

    /** Show another picture, all of it. */
    open(bitmap: ImageBitmap): void {
        this.#bitmap?.close();
        this.#bitmap = bitmap;
        this.#line = null;
        this.fit();
    }

    show(shown: Shown): void {
        this.#shown = shown;
        this.#draw();
    }

    /** Remove the ruler's line. */
    clearLine(): void {
        this.#line = null;
        this.#draw();
    }

    /** Show the whole field. */
    fit(): void {
        if (!this.#bitmap) return;
        const { clientWidth, clientHeight } = this.#canvas;
        this.#zoom = Math.min(clientWidth / this.#bitmap.width, clientHeight / this.#bitmap.height);
        this.#left = (clientWidth - this.#bitmap.width * this.#zoom) / 2;
        this.#top = (clientHeight - this.#bitmap.height * this.#zoom) / 2;
        this.#isFitted = true;
        this.#draw();
    }

    /** Zoom in or out by steps, about the middle. */
    zoom(steps: number): void {
        this.#zoomAt(this.#canvas.clientWidth / 2, this.#canvas.clientHeight / 2, STEP ** steps);
    }

    /** Move the field by arrow keys. */
    pan(right: number, down: number): void {
        this.#left -= right * PAN;
        this.#top -= down * PAN;
        this.#isFitted = false;
        this.#draw();
    }

    /** The place of the field in the middle of the canvas. */
    get middle(): Point {
        return this.#toField(this.#canvas.clientWidth / 2, this.#canvas.clientHeight / 2);
    }

    /** Bring a place to the middle, near enough to see a nucleus. */
    goTo({ row, col }: Point): void {
        const { clientWidth, clientHeight } = this.#canvas;
        this.#zoom = Math.max(this.#zoom, 30 / this.#shown.radius);
        this.#left = clientWidth / 2 - (col + 0.5) * this.#zoom;
        this.#top = clientHeight / 2 - (row + 0.5) * this.#zoom;
        this.#isFitted = false;
        this.#draw();
    }

    #toField(x: number, y: number): Point {
        return { row: (y - this.#top) / this.#zoom - 0.5, col: (x - this.#left) / this.#zoom - 0.5 };
    }

    #zoomAt(x: number, y: number, factor: number): void {
        if (!this.#bitmap) return;
        const { clientWidth, clientHeight } = this.#canvas;
        const whole = Math.min(clientWidth / this.#bitmap.width, clientHeight / this.#bitmap.height);
        const zoom = clamp(this.#zoom * factor, Math.min(whole, 1) / 2, MOST_ZOOM);
        this.#left = x - ((x - this.#left) * zoom) / this.#zoom;
        this.#top = y - ((y - this.#top) * zoom) / this.#zoom;
        this.#zoom = zoom;
        this.#isFitted = false;
        this.#draw();
    }

    #press(event: PointerEvent): void {
        if (event.button !== 0) return; // the others have menus of their own
        this.#canvas.setPointerCapture(event.pointerId);
        this.#fingers.set(event.pointerId, event);
        this.#moved = this.#fingers.size > 1 ? Number.POSITIVE_INFINITY : 0; // two fingers never tap
        if (!this.isMeasuring) return;
        const start = this.#toField(event.offsetX, event.offsetY);
        this.#line = this.#fingers.size === 1 ? [start, start] : null;
    }

    #move(event: PointerEvent): void {
        const before = this.#fingers.get(event.pointerId);
        if (!before) return;
        const others = [...this.#fingers.values()].filter((finger) => finger.pointerId !== event.pointerId);
        this.#fingers.set(event.pointerId, event);
        const [right, down] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
        this.#moved += Math.hypot(right, down);
        const [other] = others;
        if (other) {
            const distance = (finger: PointerEvent) =>
                Math.hypot(finger.offsetX - other.offsetX, finger.offsetY - other.offsetY);
            this.#left += right / 2;
            this.#top += down / 2;
            const [x, y] = [(event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2];
            this.#zoomAt(x, y, distance(event) / Math.max(distance(before), 1));
        } else if (this.#line && this.isMeasuring) {
            this.#line = [this.#line[0], this.#toField(event.offsetX, event.offsetY)];
            this.#draw();
        } else if (this.#moved > TAP) {
            this.#left += right;
            this.#top += down;
            this.#isFitted = false;
            this.#draw();
        }
    }

    #release(event: PointerEvent): void {
        if (!this.#fingers.delete(event.pointerId) || !this.#bitmap) return;
        if (this.isMeasuring && this.#line && this.#moved > TAP) {
            this.#actions.measure(this.#line);
        } else if (this.#moved <= TAP) {
            const point = this.#toField(event.offsetX, event.offsetY);
            const { width, height } = this.#bitmap;
            const isInside =
                point.row > -0.5 && point.col > -0.5 && point.row < height - 0.5 && point.col < width - 0.5;
            if (isInside) this.#actions.tap(point, Math.max(REACH / this.#zoom, this.#shown.radius));
        }
    }

    #turnWheel(event: WheelEvent): void {
        event.preventDefault();
        this.#zoomAt(event.offsetX, event.offsetY, 2 ** (-event.deltaY / 300));
    }

    #resize(): void {
        const { clientWidth, clientHeight } = this.#canvas;
        this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
        this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
        // What is in the middle stays there: lines and forms below come and go.
        this.#left += (clientWidth - this.#size.width) / 2;
        this.#top += (clientHeight - this.#size.height) / 2;
        this.#size = { width: clientWidth, height: clientHeight };
        if (this.#isFitted) this.fit();
        this.#draw();
    }

    /** Draw before the browser shows the next picture. */
    #draw(): void {
        if (this.#isWaiting) return;
        this.#isWaiting = true;
        requestAnimationFrame(() => {
            this.#isWaiting = false;
            this.#paint();
        });
    }

    #paint(): void {
        const context = this.#context;
        context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
        context.fillStyle = getComputedStyle(this.#canvas).backgroundColor;
        context.fillRect(0, 0, this.#canvas.clientWidth, this.#canvas.clientHeight);
        if (!this.#bitmap) return;
        context.imageSmoothingEnabled = this.#zoom < 4;
        context.imageSmoothingQuality = "high";
        const { width, height } = this.#bitmap;
        context.drawImage(this.#bitmap, this.#left, this.#top, width * this.#zoom, height * this.#zoom);
        const { marks, selected, hotSpot, radius, isAdding } = this.#shown;
        const toScreen = ({ row, col }: Point) => ({
            x: this.#left + (col + 0.5) * this.#zoom,
            y: this.#top + (row + 0.5) * this.#zoom,
        });
        if (hotSpot) {
            drawRectangle(context, toScreen(hotSpot), hotSpot.width * this.#zoom, hotSpot.height * this.#zoom);
        }
        const size = Math.max(radius * this.#zoom * 1.4, 7);
        for (const mark of marks) drawMark(context, toScreen(mark), size, mark, mark.id === selected?.id);
        if (this.#line) drawLine(context, toScreen(this.#line[0]), toScreen(this.#line[1]));
        if (isAdding) drawCross(context, this.#canvas.clientWidth / 2, this.#canvas.clientHeight / 2);
    }
}
