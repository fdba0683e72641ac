"use strict";
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector) => document.querySelectorAll(selector);
const el = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
const button = (text, label, onclick) =>
  el("button", { type: "button", title: label, ariaLabel: label, onclick }, text);
const percent = (share) => `${(100 * share).toFixed(share >= 0.0995 || share === 0 ? 0 : 1)} %`;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const arrow = (event) => ({ ArrowLeft: -1, ArrowRight: 1 })[event.key];

// -- layers: a picture, and class maps as PNGs with a palette, from scripts beside the page -------

const loading = new Map(); // address of a script -> promise of {layer: base64}
window.layers = (content) => document.currentScript.deliver(content);

function load(address) {
  if (!loading.has(address)) {
    loading.set(address, new Promise((resolve) => {
      const deliver = (content) => { script.remove(); resolve(content); };
      const script = el("script", { src: address, deliver, onerror: () => deliver({}) });
      document.head.append(script);
    }));
  }
  return loading.get(address);
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/* A layer as the address of an image; in a PNG the palette's entries in `off` are transparent. */
function imageOf(base64, off) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const isPng = bytes[0] === 0x89;
  if (isPng) {
    const view = new DataView(bytes.buffer);
    let at = 8; // past the signature; a chunk is length, type, data, checksum
    while (view.getUint32(at + 4) !== 0x74524e53) at += 12 + view.getUint32(at); // "tRNS"
    const end = at + 8 + view.getUint32(at);
    for (const id of off) bytes[at + 8 + id] = 0;
    view.setUint32(end, crc32(bytes.subarray(at + 4, end)));
  }
  return URL.createObjectURL(new Blob([bytes], { type: isPng ? "image/png" : "image/jpeg" }));
}

// -- gallery and viewer --------------------------------------------------------------------------

function startGallery(root, { classes, modes, numbers, pictures, start }) {
  const off = new Set(classes.flatMap((entry, id) => (entry.on ? [] : [id])));
  const share = (picture, id) => picture.shares[id] || 0;
  const means = classes.map((_, id) =>
    pictures.reduce((sum, picture) => sum + share(picture, id), 0) / (pictures.length || 1));
  const present = classes.map((_, id) => id).filter((id) => pictures.some(({ shares }) => id in shares));
  const several = present.length > 2;
  const frames = new Set(); // those in view
  let updates = []; // show the state in a control
  let mode = start, before = 0, alpha = 0.55, opened = 0, shown = pictures, round = 0;

  const text = ({ kind }, value) => (kind === "percent" ? percent(value) : value.toFixed(3));
  const largest = (picture) => present.filter((id) => id in picture.shares)
    .sort((a, b) => share(picture, b) - share(picture, a));
  const summary = (picture) => largest(picture).slice(0, 4)
    .map((id) => `${classes[id].name} ${percent(share(picture, id))}`).join(", ");

  function frameOf(picture) {
    const alt = `${picture.name}: ${summary(picture)}`;
    const base = el("img", { className: "base", decoding: "async", alt });
    return Object.assign(el("div", { className: "frame" }, base), { picture, base, tops: {} });
  }

  /* Draw a layer, in which the classes in `hide` are transparent, unless it is there. */
  async function draw(image, frame, layer, hide) {
    const wanted = `${hide}`;
    if (image.wanted === wanted) return;
    image.wanted = wanted;
    const content = (await load(frame.picture.layers))[layer];
    if (!content || image.wanted !== wanted) return;
    const address = imageOf(content, hide);
    image.onload = () => URL.revokeObjectURL(address);
    image.src = address;
    if (!image.parentNode) frame.append(image);
  }

  /* Draw a frame's picture, and the mode's layer over it. */
  function paint(frame) {
    const { layer } = modes[mode];
    for (const [name, top] of Object.entries(frame.tops)) top.hidden = name !== layer;
    draw(frame.base, frame, "picture", []);
    if (!layer) return;
    const top = frame.tops[layer] ||= el("img", { className: "top", alt: "", decoding: "sync" });
    draw(top, frame, layer, layer === "errors" ? [0] : [...off].sort());
  }

  function leave(frame) { // let go of what is out of view
    frames.delete(frame);
    for (const image of [frame.base, ...Object.values(frame.tops)]) image.wanted = null;
    for (const top of Object.values(frame.tops)) top.remove();
    frame.base.removeAttribute("src");
    frame.tops = {};
    loading.delete(frame.picture.layers);
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const frame = target.firstChild;
      if (isIntersecting) paint(frames.add(frame) && frame);
      else leave(frame);
    }
  }, { rootMargin: "300px" });

  function show() {
    const { layer, blend } = modes[mode];
    for (const node of [root, dialog]) {
      node.classList.toggle("solid", Boolean(layer) && !blend);
      node.style.setProperty("--alpha", alpha);
    }
    for (const update of updates) update();
    frames.forEach(paint);
  }
  const setMode = (next) => { if (next !== mode) [before, mode] = [mode, next]; show(); };
  const setAlpha = (next) => { alpha = clamp(Math.round(20 * next) / 20, 0, 1); show(); };
  const setClasses = (ids, on) => { for (const id of ids) off[on ? "delete" : "add"](id); show(); };

  function modeControls(name) {
    const inputs = modes.map((_, i) => el("input", { type: "radio", name, onchange: () => setMode(i) }));
    const slider = el("input", { type: "range", max: 1, step: 0.05, oninput: () => setAlpha(+slider.value) });
    updates.push(() => {
      inputs[mode].checked = true;
      slider.value = alpha;
      slider.disabled = !modes[mode].blend;
    });
    return [
      el("fieldset", { className: "segments", ariaLabel: "View" },
        ...modes.map((entry, i) => el("label", { title: `key ${i + 1}` }, inputs[i], entry.name))),
      el("label", {}, "Opacity", slider),
    ];
  }

  function classSwitch(id, ...more) {
    const box = el("input", { type: "checkbox", onchange: () => setClasses([id], box.checked) });
    const swatch = el("span", { className: "swatch", style: `background:${classes[id].colour}` });
    updates.push(() => { box.checked = !off.has(id); });
    return el("label", {}, box, swatch, classes[id].name, ...more);
  }

  // the list

  const ways = [
    ["as listed", () => 0],
    ["name", (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true })],
    ...numbers.flatMap(({ name }, i) => ["lowest", "highest"].map((end, down) =>
      [`${name}, ${end} first`, (a, b) => (down ? -1 : 1) * (a.numbers[i] - b.numbers[i])])),
    ...present.map((id) => [`share of ${classes[id].name}`, (a, b) => share(b, id) - share(a, id)]),
  ];
  const choice = (options) => el("select", { onchange: arrange },
    ...options.map(([name, value]) => el("option", { value }, name)));
  const sort = choice(ways.map(([name], i) => [name, i]));
  const filter = choice([["any class", -1], ...present.map((id) => [classes[id].name, id])]);
  const search = el("input", { type: "search", placeholder: "Name", ariaLabel: "Name contains", oninput: arrange, size: 12 });
  const count = el("span", { className: "quiet", ariaLive: "polite" });
  const tiles = el("div", { className: "tiles" });
  const made = new Map();

  function tileOf(picture) {
    if (made.has(picture)) return made.get(picture);
    let from = 0;
    const stops = largest(picture).map((id) =>
      `${classes[id].colour} ${100 * from}% ${100 * (from += share(picture, id))}%`);
    const mix = stops.length ? `background:linear-gradient(90deg,${stops})` : "";
    const values = numbers.map((number, i) => `${number.name} ${text(number, picture.numbers[i])}`);
    const tile = el("button", { className: "tile", type: "button", onclick: () => open(shown.indexOf(picture)) },
      frameOf(picture), el("b", { title: picture.name }, picture.name),
      el("span", { className: "mix", style: mix }),
      el("span", { className: "quiet" }, values.join(" · ") || summary(picture)));
    made.set(picture, tile);
    return tile;
  }

  function arrange() {
    const word = search.value.trim().toLowerCase(), id = +filter.value;
    shown = pictures.filter((picture) =>
      picture.name.toLowerCase().includes(word) && (id < 0 || id in picture.shares)).sort(ways[sort.value][1]);
    count.textContent = `${shown.length === pictures.length ? "" : `${shown.length} of `}${pictures.length} picture${pictures.length === 1 ? "" : "s"}`;
    watcher.disconnect();
    frames.forEach(leave);
    tiles.replaceChildren();
    const current = ++round;
    const more = (from, to) => { // the first screens at once, the rest when there is time
      if (current !== round) return;
      const some = shown.slice(from, to).map(tileOf);
      tiles.append(...some);
      for (const tile of some) watcher.observe(tile);
      if (to < shown.length) setTimeout(more, 0, to, to + 100);
    };
    more(0, 36);
  }

  // one picture, large

  const title = el("span", { className: "title" });
  const stage = el("div", { className: "stage", tabIndex: -1 });
  const side = el("aside", { className: "side" });
  const dialog = el("dialog", { ariaLabel: "Picture" }, el("div", { className: "viewer" },
    el("div", { className: "tools" }, title, ...modeControls("large"), el("span", {},
      button("←", "Previous picture", () => open(opened - 1)), button("→", "Next picture", () => open(opened + 1)),
      button("✕", "Close", () => dialog.close()))),
    stage, side));
  dialog.onclose = () => {
    frames.delete(stage.firstChild);
    stage.replaceChildren();
    tileOf(shown[opened]).focus();
  };

  let lasting;
  function open(place) {
    if (!shown[place]) return;
    const picture = shown[opened = place];
    const frame = frameOf(picture);
    frames.delete(stage.firstChild);
    frames.add(frame);
    stage.replaceChildren(frame);
    title.textContent = `${picture.name} · ${place + 1} of ${shown.length}`;
    updates = updates.slice(0, lasting ??= updates.length);
    const row = (name, value) => el("tr", {}, el("td", {}, name), el("td", { className: "number" }, value));
    side.replaceChildren(
      el("table", {}, ...numbers.map((number, i) => row(number.name, text(number, picture.numbers[i]))),
        row("size", `${picture.width} × ${picture.height}`)),
      el("h3", {}, "Classes"),
      el("table", {}, ...largest(picture).map((id) => row(classSwitch(id), percent(share(picture, id))))),
      el("h3", {}, "Files"), el("code", {}, picture.note),
      ...picture.files.map(([name, href]) => el("p", {}, el("a", { href, target: "_blank" }, name))),
      el("p", { className: "hint" }, `Keys: ← → pictures · 1–${modes.length} views · F back and forth · [ ] opacity · Z larger · Esc close`));
    if (!dialog.open) { dialog.showModal(); stage.focus(); }
    show();
    const near = [shown[place + 1], shown[place - 1]].filter(Boolean).map(({ layers }) => layers);
    const kept = new Set([...near, ...[...frames].map((one) => one.picture.layers)]);
    for (const address of loading.keys()) if (!kept.has(address)) loading.delete(address);
    near.forEach(load);
  }

  document.addEventListener("keydown", (event) => {
    const { target } = event, key = event.key.toLowerCase(), step = dialog.open && arrow(event);
    if (target.matches("select, video, [type=search]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (modes[key - 1]) setMode(key - 1);
    else if (key === "f") setMode(before);
    else if (key === "[" || key === "]") setAlpha(alpha + (key === "]" ? 0.1 : -0.1));
    else if (key === "z") stage.classList.toggle("large");
    else if (step && !target.matches("input")) open(opened + step);
  });

  root.replaceChildren(
    el("div", { className: "tools" }, ...modeControls("list"), el("label", {}, "Sort by", sort),
      ...(several ? [el("label", {}, "With", filter)] : []), search, count),
    el("div", { className: "legend" },
      ...present.map((id) => classSwitch(id, el("span", { className: "quiet" }, percent(means[id])))),
      ...(several ? [button("all", "All classes on", () => setClasses(present, true)),
        button("none", "All classes off", () => setClasses(present, false))] : [])),
    tiles, dialog);
  arrange();
  show();
}

for (const data of all(".gallery-data")) startGallery(data.previousElementSibling, JSON.parse(data.textContent));

// -- curves: the values under the pointer, or by the arrow keys ----------------------------------

for (const chart of all(".chart")) {
  const { x, labels, lines, axis } = JSON.parse(chart.dataset.values);
  const svg = find("svg", chart), cursor = find(".cursor", chart), output = find("output", chart);
  let at = x.length - 1;
  const show = (place) => {
    at = clamp(place, 0, x.length - 1);
    cursor.style.transform = `translateX(${x[at]}px)`;
    output.textContent = `${axis} ${labels[at]}: ${lines.map(([name, values]) => `${name} ${values[at] ?? "–"}`).join(", ")}`;
  };
  svg.onpointermove = (event) => {
    const box = svg.getBoundingClientRect();
    const distance = (value) => Math.abs(value - ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
    show(x.reduce((best, value, i) => (distance(value) < distance(x[best]) ? i : best), 0));
  };
  svg.onkeydown = (event) => {
    if (arrow(event)) { show(at + arrow(event)); event.preventDefault(); }
  };
  show(at);
}

// -- validation pictures by epoch ----------------------------------------------------------------

for (const box of all(".epochs")) {
  const files = JSON.parse(box.dataset.files), slider = find("input", box);
  slider.oninput = () => {
    const at = +slider.value;
    find("output", box).textContent = files[at][0];
    Object.assign(find("img", box), { src: files[at][1], alt: `Pictures, masks and predictions, ${files[at][0]}` });
    for (const near of [files[at - 1], files[at + 1]]) if (near) new Image().src = near[1];
  };
}

// -- films: the shares over time show the place, and seek ----------------------------------------

for (const film of all(".film")) {
  const { times, names, shares } = JSON.parse(film.dataset.shares);
  const video = find("video", film), line = find(".timeline", film), now = find(".now", film);
  const end = times.at(-1);
  let place = 0;
  const show = (seconds) => {
    place = clamp(seconds, 0, end);
    now.style.left = `${(100 * place) / end}%`;
    const at = clamp(times.findLastIndex((time) => time <= place + 1e-6), 0, shares.length - 1);
    const values = names.map((name, id) => [name, shares[at][id]]).filter(([, value]) => value);
    const top = values.sort((a, b) => b[1] - a[1]).slice(0, 5);
    const said = `${place.toFixed(1)} s: ${top.map(([name, value]) => `${name} ${percent(value)}`).join(", ")}`;
    find("output", film).textContent = said;
    Object.assign(line, { ariaValueNow: place.toFixed(1), ariaValueText: said });
  };
  const seek = (seconds) => {
    show(seconds);
    if (video) video.currentTime = place;
  };
  const seekTo = ({ clientX }) => {
    const box = line.getBoundingClientRect();
    seek(((clientX - box.left) / box.width) * end);
  };
  line.onpointerdown = (event) => { line.setPointerCapture(event.pointerId); seekTo(event); };
  line.onpointermove = (event) => { if (event.buttons) seekTo(event); };
  line.onkeydown = (event) => {
    if (arrow(event)) { seek(place + (arrow(event) * end) / 50); event.preventDefault(); }
  };
  if (video) {
    const follow = () => {
      show(video.currentTime);
      if (!video.paused) requestAnimationFrame(follow);
    };
    video.onplay = video.onseeked = follow;
  }
  show(0);
}
