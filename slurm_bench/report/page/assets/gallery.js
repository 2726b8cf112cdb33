/* The samples as cards: filtered, sorted, and made as one scrolls to them. Text from the data is set as text alone. */
"use strict";

/** An element with properties and children; a child that is text stays text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Near 0 as many decimals as show three digits, as in the tables. */
function shownNumber(value) {
  if (value === undefined) return "–";
  const size = Math.abs(Number(value.toPrecision(3)));
  if (size > 0 && size < 0.1) return size < 1e-7 ? value.toExponential(2) : value.toFixed(2 - Math.floor(Math.log10(size)));
  return Number.isInteger(value) && Math.abs(value) >= 100 ? String(value) : value.toFixed(3);
}

const Gallery = (() => {
  const CARDS_AT_ONCE = 48;
  const samples = REPORT.samples.map((sample, index) => ({
    said: [],
    told: {},
    ...sample,
    index,
    text: [sample.id, sample.instruction, sample.rewritten, sample.error, ...(sample.said ?? []).map((said) => said.raw)].join("\n").toLowerCase(),
  }));
  const form = document.getElementById("filters");
  const list = document.getElementById("gallery");
  const more = document.getElementById("more");
  let shown = [];
  let made = 0;

  function fill(select, values) {
    for (const [value, label] of values) select.append(make("option", { value }, label));
  }

  function setUp() {
    const fields = form.elements;
    fill(fields.category, [...new Set(samples.map((sample) => sample.category))].map((name) => [name, name]));
    fill(fields.flag, [...new Set(samples.flatMap((sample) => sample.flags))].map((flag) => [flag, flag]));
    fill(fields.score, REPORT.scores.map((name) => [name, name]));
    if (REPORT.headline !== null) fields.score.value = REPORT.headline;
    fill(fields.sort, REPORT.sorts);
    for (const name of REPORT.scores) fill(fields.sort, [[`+${name}`, `${name}, lowest first`], [`-${name}`, `${name}, highest first`]]);
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(() => {
      if (REPORT.headline !== null) fields.score.value = REPORT.headline;
      apply();
    }));
    form.addEventListener("submit", (event) => event.preventDefault());
    new IntersectionObserver((seen) => seen[0].isIntersecting && showMore(), { rootMargin: "1500px" }).observe(more);
    apply();
  }

  function passes(sample) {
    const fields = form.elements;
    const words = fields.text.value.toLowerCase().split(/\s+/);
    if (!words.every((word) => sample.text.includes(word))) return false;
    if (fields.category.value && sample.category !== fields.category.value) return false;
    if (fields.status.value && sample.status !== fields.status.value) return false;
    if (fields.flag.value && !sample.flags.includes(fields.flag.value)) return false;
    const score = sample.scores[fields.score.value];
    const { low, high } = fields;
    if (low.value !== "" && !(score >= low.valueAsNumber)) return false;
    return high.value === "" || score <= high.valueAsNumber;
  }

  /** What to sort by: a number, the lowest first; a sample without it comes last. */
  function sortKey(how) {
    const value = (sample, name, sign) => (name in sample.scores ? sign * sample.scores[name] : Infinity);
    const sign = REPORT.higherIsBetter ? 1 : -1;
    if (how === "worst") return (sample) => (sample.status === "ok" ? value(sample, REPORT.headline, sign) : -Infinity);
    if (how === "best") return (sample) => (sample.status === "ok" ? value(sample, REPORT.headline, -sign) : Infinity);
    if (how === "plan") return (sample) => sample.index;
    if (how === "slow") return (sample) => -(sample.seconds.edit ?? -Infinity);
    if (how[0] === "±") return (sample) => -Math.abs(sample.scores[how.slice(1)] ?? 0);
    return (sample) => value(sample, how.slice(1), how[0] === "+" ? 1 : -1);
  }

  function apply() {
    const key = sortKey(form.elements.sort.value);
    const keys = new Map(samples.map((sample) => [sample, key(sample)]));
    const order = (a, b) => (keys.get(a) < keys.get(b) ? -1 : keys.get(a) > keys.get(b) ? 1 : a.index - b.index);
    shown = samples.filter(passes).sort(order);
    made = 0;
    list.replaceChildren();
    document.getElementById("count").textContent = `${shown.length} of ${samples.length} samples`;
    showMore();
  }

  function showMore() {
    if (made >= shown.length) return;
    list.append(...shown.slice(made, made + CARDS_AT_ONCE).map(card));
    made += CARDS_AT_ONCE;
    /* The observer tells of changes alone: where the end is still near, it has none to tell. */
    requestAnimationFrame(() => more.getBoundingClientRect().top < innerHeight + 1500 && showMore());
  }

  function card(sample) {
    const button = make("button", { type: "button", className: "open" }, sample.id);
    button.addEventListener("click", () => { location.hash = hashOf(sample); });
    const pictures = make("div", { className: "thumbs" }, ...sample.pictures.filter((picture) => picture.role !== "mask").map(thumbnail));
    pictures.addEventListener("click", () => button.click());
    return make("li", { className: `sample ${sample.status}` },
      pictures,
      make("div", { className: "words" },
        make("h3", {}, button),
        make("p", { className: "instruction" }, sample.instruction),
        sample.rewritten ? make("p", { className: "instruction" }, `rewritten: ${sample.rewritten}`) : null,
        make("p", { className: "chips" }, make("span", { className: "chip" }, sample.category), ...badges(sample)),
        sample.error ? make("p", { className: "why" }, sample.error) : null));
  }

  function badges(sample) {
    const scores = Object.entries(sample.scores).slice(0, 6).map(([name, value]) =>
      make("span", { className: name === REPORT.headline ? "chip score" : "chip" }, `${name} `, make("b", {}, shownNumber(value))));
    const status = sample.status === "ok" ? [] : [make("span", { className: "chip bad" }, sample.status === "error" ? "failed" : "missing")];
    return [...status, ...sample.flags.map((flag) => make("span", { className: "chip bad" }, flag)), ...scores];
  }

  function thumbnail(picture) {
    const shownPicture = picture.thumb
      ? make("img", { src: picture.thumb, alt: picture.role, loading: "lazy", decoding: "async" })
      : make("span", { className: "none" }, picture.problem || "no thumbnail");
    return make("figure", {}, shownPicture, make("figcaption", {}, picture.role));
  }

  const hashOf = (sample) => `#/${encodeURIComponent(sample.id)}`;

  /** The sample that the address names, or undefined. */
  function named(hash) {
    if (!hash.startsWith("#/")) return undefined;
    try {
      const id = decodeURIComponent(hash.slice(2));
      return samples.find((sample) => sample.id === id);
    } catch {
      return undefined;
    }
  }

  /** The sample so many places further in what is shown now, or undefined. */
  const beside = (sample, steps) => shown[shown.indexOf(sample) + steps];
  const place = (sample) => (shown.includes(sample) ? `${shown.indexOf(sample) + 1} of ${shown.length}` : "not among those filtered");

  setUp();
  return { named, beside, place, badges, hashOf };
})();

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "/" && !typing && !document.getElementById("viewer").open) {
    event.preventDefault();
    document.querySelector("#filters [name=text]").focus();
  } else if (event.key === "Escape" && event.target.matches?.("#filters input")) {
    event.target.blur();
  }
});

document.getElementById("copy")?.addEventListener("click", async () => {
  const said = document.getElementById("copied");
  const paper = document.getElementById("paper");
  try {
    await navigator.clipboard.writeText(paper.textContent);
    said.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(paper);
    said.textContent = "selected: copy it with the keyboard";
  }
});
