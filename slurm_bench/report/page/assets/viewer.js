/* One sample, large: side by side, under a slider, or flipped in place; zoom and pan move all its pictures in step. */
"use strict";

(() => {
  const MOST_ZOOM = 32;
  const dialog = document.getElementById("viewer");
  const stage = document.getElementById("stage");
  const element = (id) => document.getElementById(id);
  const left = element("left");
  const right = element("right");
  const mask = element("mask");
  const wanted = { left: REPORT.pair[0], right: REPORT.pair[1] };
  let sample = null;
  let mode = "beside";
  let flipped = false;
  let view = { zoom: 1, x: 0, y: 0 }; // x and y: how far the pictures are moved, in parts of a pane

  /* ---- what is seen ---- */

  function open(next) {
    sample = next;
    flipped = false;
    element("viewer-title").textContent = sample.id;
    element("viewer-place").textContent = `${sample.category} · ${Gallery.place(sample)}`;
    element("previous").disabled = !Gallery.beside(sample, -1);
    element("next").disabled = !Gallery.beside(sample, 1);
    choosePair();
    about();
    draw();
    if (!dialog.open) {
      dialog.showModal();
      element("viewer-title").focus();
    }
  }

  /** The pictures that were asked for, where this sample has them; else what is there. */
  function choosePair() {
    const roles = sample.pictures.map((picture) => picture.role);
    for (const [select, otherwise] of [[left, roles[0]], [right, roles[roles.length - 1]]]) {
      select.replaceChildren(...roles.map((role) => make("option", { value: role }, role)));
      select.value = roles.includes(wanted[select.id]) ? wanted[select.id] : otherwise;
    }
  }

  const chosen = (select) => sample.pictures.find((picture) => picture.role === select.value);

  function draw() {
    stage.className = `stage ${mode}`;
    element("pair").hidden = mode === "beside";
    mask.parentElement.hidden = mode !== "beside" || !sample.pictures.some((picture) => picture.role === "mask");
    for (const radio of element("modes").querySelectorAll("input")) radio.checked = radio.value === mode;
    if (!sample.pictures.length) stage.replaceChildren(make("p", { className: "none" }, "no pictures"));
    else if (mode === "beside") stage.replaceChildren(...sample.pictures.filter(beside).map((picture) => pane(picture)));
    else if (mode === "flip") stage.replaceChildren(pane(chosen(flipped ? left : right)));
    else stage.replaceChildren(slider(chosen(left), chosen(right)));
    move();
  }

  const beside = (picture) => picture.role !== "mask" || mask.checked;

  function pane(picture) {
    return make("figure", { className: "pane" },
      make("div", { className: "frame" }, ...image(picture)),
      make("figcaption", { "aria-live": mode === "flip" ? "polite" : "off" }, make("span", {}, picture.role), fullLink(picture)));
  }

  function slider(first, second) {
    const compare = document.createElement("image-compare");
    compare.setAttribute("label-text", `How much of ${first.role} is shown over ${second.role}, in percent`);
    compare.append(
      make("div", { slot: "image-1", className: "frame" }, ...image(first)),
      make("div", { slot: "image-2", className: "frame" }, ...image(second)));
    const caption = make("figcaption", {}, make("span", {}, first.role), make("span", {}, second.role));
    return make("figure", { className: "pane" }, compare, caption);
  }

  /** The thumbnail at once, and the full image over it when it is there; where it is not, the thumbnail stays. */
  function image(picture) {
    const reachable = picture.full && (location.protocol === "file:" || !picture.full.startsWith("file:"));
    const layers = [];
    if (picture.thumb) layers.push(make("img", { src: picture.thumb, alt: reachable ? "" : picture.role, draggable: false }));
    if (reachable && !picture.problem) {
      const full = make("img", { src: picture.full, alt: picture.role, draggable: false, className: "full" });
      full.addEventListener("load", () => layers.length > 1 && layers[0].remove());
      full.addEventListener("error", () => {
        full.remove();
        if (picture.thumb) layers[0].alt = picture.role;
      });
      layers.push(full);
    }
    return layers.length ? layers : [make("span", { className: "none" }, picture.problem || "no picture here")];
  }

  function fullLink(picture) {
    return picture.full && !picture.problem
      ? make("a", { href: picture.full, target: "_blank", rel: "noopener noreferrer", "aria-label": `full image of ${picture.role}` }, "full image")
      : null;
  }

  function about() {
    const facts = [
      ["seed", String(sample.seed)],
      ["size", sample.size && sample.size.join(" × ")],
      ...Object.entries(sample.seconds).map(([name, seconds]) => [`seconds, ${name}`, shownNumber(seconds)]),
      ...Object.entries(sample.told),
    ].filter(([, value]) => value);
    const rows = REPORT.scores.map((name) => make("tr", {},
      make("th", { scope: "row" }, name), make("td", { className: "n" }, shownNumber(sample.scores[name]))));
    element("about").replaceChildren(
      make("p", { className: "instruction" }, sample.instruction),
      ...(sample.rewritten ? [make("h3", {}, "Rewritten to"), make("p", { className: "instruction" }, sample.rewritten)] : []),
      make("p", { className: "chips" }, ...Gallery.badges({ ...sample, scores: {} })),
      ...(sample.error ? [make("p", { className: "why" }, sample.error)] : []),
      make("table", {}, make("caption", { className: "hidden" }, "scores"), make("tbody", {}, ...rows)),
      ...sample.said.map((said) => make("div", {},
        make("h3", {}, said.title ?? `What ${said.scorer} said${said.parse === "ok" ? "" : ` (${said.parse})`}`),
        make("pre", { tabIndex: 0 }, said.raw))),
      make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    element("about").scrollTop = 0;
  }

  /* ---- zoom and pan ---- */

  function move() {
    const most = Math.max(0, (view.zoom - 1) / 2);
    view.x = Math.min(most, Math.max(-most, view.x));
    view.y = Math.min(most, Math.max(-most, view.y));
    stage.style.setProperty("--zoom", view.zoom);
    stage.style.setProperty("--x", view.x);
    stage.style.setProperty("--y", view.y);
    stage.classList.toggle("near", view.zoom >= 4);
    element("zoom").textContent = `${Math.round(100 * view.zoom)} %`;
  }

  /** Zoom so that the point (x, y) of a pane, counted from its middle in parts of the pane, stays where it is. */
  function zoomBy(factor, x = 0, y = 0) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor));
    const ratio = zoom / view.zoom;
    view = { zoom, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
    move();
  }

  function zoomReset() {
    view = { zoom: 1, x: 0, y: 0 };
    move();
  }

  stage.addEventListener("wheel", (event) => {
    const frame = event.target.closest(".frame, image-compare");
    if (!frame) return;
    event.preventDefault();
    const box = frame.getBoundingClientRect();
    zoomBy(Math.exp(-event.deltaY / 400), (event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5);
  }, { passive: false });

  /* In the slider a plain drag is the slider's, and one with Shift pans. */
  stage.addEventListener("pointerdown", (event) => {
    const frame = event.target.closest(".frame, image-compare");
    if (!frame || event.button !== 0 || (mode === "slider" && !event.shiftKey)) return;
    event.preventDefault();
    event.stopPropagation();
    const box = frame.getBoundingClientRect();
    let { clientX, clientY } = event;
    const drag = (next) => {
      view.x += (next.clientX - clientX) / box.width;
      view.y += (next.clientY - clientY) / box.height;
      ({ clientX, clientY } = next);
      move();
    };
    const stop = () => {
      removeEventListener("pointermove", drag);
      removeEventListener("pointerup", stop);
      removeEventListener("pointercancel", stop);
    };
    addEventListener("pointermove", drag);
    addEventListener("pointerup", stop);
    addEventListener("pointercancel", stop);
  }, { capture: true });

  /* ---- keys and buttons ---- */

  function setMode(next) {
    mode = next;
    draw();
  }

  function flip() {
    if (mode === "flip") flipped = !flipped;
    else [mode, flipped] = ["flip", true];
    draw();
  }

  function toggleMask() {
    mask.checked = !mask.checked;
    draw();
  }

  function step(steps) {
    const next = Gallery.beside(sample, steps);
    if (!next) return;
    history.replaceState(null, "", Gallery.hashOf(next));
    open(next);
  }

  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    f: flip,
    s: () => setMode("slider"),
    b: () => setMode("beside"),
    m: toggleMask,
    "+": () => zoomBy(1.5),
    "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5),
    0: zoomReset,
  };

  dialog.addEventListener("keydown", (event) => {
    const target = event.composedPath()[0];
    const own = target.matches("select") || (target.matches("input") && event.key.startsWith("Arrow"));
    if (own || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });

  element("modes").addEventListener("change", (event) => setMode(event.target.value));
  mask.addEventListener("change", draw);
  for (const select of [left, right]) {
    select.addEventListener("change", () => {
      wanted[select.id] = select.value;
      draw();
    });
  }
  element("zoom-in").addEventListener("click", () => zoomBy(1.5));
  element("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  element("zoom-reset").addEventListener("click", zoomReset);
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  element("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (Gallery.named(location.hash)) history.replaceState(null, "", location.pathname + location.search);
    stage.replaceChildren();
  });

  function follow() {
    const next = Gallery.named(location.hash);
    if (next) open(next);
    else if (dialog.open) dialog.close();
  }

  addEventListener("hashchange", follow);
  follow();
})();
