/** The page: opens a field, has the worker find its mitoses, and lets a person correct them. */

import { App } from "./page/app";
import { connect } from "./page/controls";
import { say } from "./page/status";

const app = new App();
connect(app);

// The service worker keeps the page for use offline. It also sends the headers that threads need: the first load is
// repeated with them, unless the server sends them itself.
if ("serviceWorker" in navigator && import.meta.env.PROD) {
    const { serviceWorker } = navigator;
    serviceWorker.addEventListener("controllerchange", () => {
        if (globalThis.crossOriginIsolated || app.isOpen || sessionStorage.getItem("reloaded")) return;
        sessionStorage.setItem("reloaded", "once");
        location.reload();
    });
    serviceWorker.register("./sw.js").catch(() => say("This browser does not keep the page for use offline."));
}
