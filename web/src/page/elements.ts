/** The parts of index.html that the page works with. */

function find<Kind extends Element>(id: string, kind: new () => Kind): Kind {
    const element = document.getElementById(id);
    if (!(element instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
    return element;
}

const button = (id: string) => find(id, HTMLButtonElement);
const input = (id: string) => find(id, HTMLInputElement);
const form = (id: string) => find(id, HTMLFormElement);
const any = (id: string) => find(id, HTMLElement);

export const elements = {
    about: button("about"),
    aboutDialog: find("about-dialog", HTMLDialogElement),
    facts: any("facts"),
    stage: any("stage"),
    open: button("open"),
    photograph: button("photograph"),
    file: input("file"),
    camera: input("camera"),
    add: button("add"),
    ruler: button("ruler"),
    undo: button("undo"),
    redo: button("redo"),
    zoomOut: button("zoom-out"),
    fit: button("fit"),
    zoomIn: button("zoom-in"),
    picture: find("picture", HTMLCanvasElement),
    hint: any("hint"),
    size: form("size"),
    microns: input("microns"),
    sizeFrom: any("size-from"),
    line: form("line"),
    length: input("length"),
    progress: find("progress", HTMLProgressElement),
    status: any("status"),
    name: any("name"),
    count: any("count"),
    density: any("density"),
    hotSpot: any("hot-spot"),
    hotSpotName: any("hot-spot-name"),
    threshold: input("threshold"),
    thresholdValue: any("threshold-value"),
    reset: button("reset"),
    csv: button("csv"),
    geojson: button("geojson"),
    marks: any("marks"),
};
