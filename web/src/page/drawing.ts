/** The look of the marks: kinds differ in shape and in colour (the palette of Okabe and Ito), on a dark halo. */

import type { Mark, State } from "../field/marks";

type Context = CanvasRenderingContext2D;

interface Place {
    readonly x: number;
    readonly y: number;
}

const HALO = "#000c";
const COLOURS: Readonly<Record<State, string>> = {
    detected: "#56b4e9",
    accepted: "#56b4e9",
    rejected: "#d55e00",
    added: "#f0e442",
};

/** Draw a circle for the detector's word, with a dot if accepted, a cross if rejected; a diamond if added. */
export function drawMark(context: Context, { x, y }: Place, radius: number, mark: Mark, isSelected: boolean): void {
    const path = new Path2D();
    if (mark.state === "added") {
        path.moveTo(x, y - radius);
        for (const [right, down] of [
            [radius, 0],
            [0, radius],
            [-radius, 0],
        ]) {
            path.lineTo(x + right, y + down);
        }
        path.closePath();
    } else if (mark.state === "rejected") {
        const arm = radius * 0.7;
        path.moveTo(x - arm, y - arm);
        path.lineTo(x + arm, y + arm);
        path.moveTo(x + arm, y - arm);
        path.lineTo(x - arm, y + arm);
    } else {
        path.arc(x, y, radius, 0, 2 * Math.PI);
    }
    stroke(context, path, COLOURS[mark.state], isSelected ? 4 : 2);
    if (mark.state === "accepted") {
        const dot = new Path2D();
        dot.arc(x + radius * 0.75, y - radius * 0.75, 3.5, 0, 2 * Math.PI);
        stroke(context, dot, COLOURS.accepted, 3);
    }
    if (isSelected) {
        const ring = new Path2D();
        ring.arc(x, y, radius + 7, 0, 2 * Math.PI);
        stroke(context, ring, "#fff", 1.5);
    }
    if (mark.probability !== null && (isSelected || radius > 24)) {
        drawText(context, mark.probability.toFixed(2), x + radius + 4, y - radius - 2);
    }
}

/** Draw the area in which mitoses are densest. */
export function drawRectangle(context: Context, { x, y }: Place, width: number, height: number): void {
    const path = new Path2D();
    path.rect(x, y, width, height);
    context.setLineDash([10, 6]);
    stroke(context, path, "#e69f00", 2);
    context.setLineDash([]);
}

/** Draw the ruler's line. */
export function drawLine(context: Context, start: Place, end: Place): void {
    const path = new Path2D();
    path.moveTo(start.x, start.y);
    path.lineTo(end.x, end.y);
    for (const { x, y } of [start, end]) {
        path.moveTo(x + 5, y);
        path.arc(x, y, 5, 0, 2 * Math.PI);
    }
    stroke(context, path, "#f0e442", 2);
}

/** Draw where a key adds a mark. */
export function drawCross(context: Context, x: number, y: number): void {
    const path = new Path2D();
    for (const [right, down] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
    ]) {
        path.moveTo(x + 4 * right, y + 4 * down);
        path.lineTo(x + 14 * right, y + 14 * down);
    }
    stroke(context, path, "#fff", 1.5);
}

function stroke(context: Context, path: Path2D, colour: string, width: number): void {
    context.strokeStyle = HALO;
    context.lineWidth = width + 2.5;
    context.stroke(path);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(path);
}

function drawText(context: Context, text: string, x: number, y: number): void {
    context.font = "600 13px system-ui, sans-serif";
    context.strokeStyle = HALO;
    context.lineWidth = 3;
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
}
