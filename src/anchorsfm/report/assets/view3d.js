"use strict";
/* Points and camera frusta of a model in WebGL 2. The world has z up and lies in the cube -1 .. 1. */
(() => {
  const box = document.getElementById("view");
  if (!box) return;
  const spaces = JSON.parse(document.getElementById("spaces").textContent);
  const images = JSON.parse(document.getElementById("lookup").textContent).images;
  const canvas = box.querySelector("canvas"), tip = box.querySelector(".tip"), message = box.querySelector(".message");
  const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) {
    message.textContent = "This browser offers no WebGL 2, so the 3D view stays empty. Everything else on this page is complete; " +
      "turning on hardware acceleration or another browser shows it.";
    message.hidden = false;
    canvas.style.height = "96px";
    for (const tool of box.querySelectorAll(".tools :is(input, select, button)")) tool.disabled = true;
    return;
  }
  const find = (name) => document.querySelector(`[data-tool="${name}"]`);
  const MODEL_COLOURS = [[0.16, 0.47, 0.84], [0.11, 0.6, 0.45], [0.55, 0.36, 0.8], [0.78, 0.29, 0.52], [0.2, 0.6, 0.7]];
  const WEAK = [0.93, 0.52, 0.1], CHOSEN = [0.87, 0.16, 0.2];
  const RAMP = [[0.27, 0.0, 0.33], [0.23, 0.32, 0.55], [0.13, 0.57, 0.55], [0.37, 0.79, 0.38], [0.99, 0.91, 0.14]];
  const FIELD = 0.8;  // vertical field of view in radians

  function program(vertex, fragment) {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, "#version 300 es\nprecision highp float;\n" + text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return made;
  }
  const dots = program(
    `layout(location=0) in vec3 place; layout(location=1) in vec3 colour; uniform mat4 clip; uniform float size; uniform float pixels;
     out vec3 tint;
     void main() { gl_Position = clip * vec4(place * 2.0 - 1.0, 1.0); gl_PointSize = clamp(size * pixels / gl_Position.w, size, size * 2.0);
       tint = colour; }`,
    `in vec3 tint; out vec4 shown;
     void main() { vec2 d = gl_PointCoord - 0.5; if (dot(d, d) > 0.25) discard; shown = vec4(tint, 1.0); }`);
  const strokes = program(
    `layout(location=0) in vec3 a; layout(location=1) in vec3 b; layout(location=2) in vec3 colour;
     uniform mat4 clip; uniform vec2 screen; uniform float width; out vec3 tint;
     void main() {
       vec4 p = clip * vec4(a, 1.0), q = clip * vec4(b, 1.0); float near = 1e-4;
       if (p.w < near && q.w < near) { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); return; }
       if (p.w < near) p = mix(p, q, (near - p.w) / (q.w - p.w)); else if (q.w < near) q = mix(q, p, (near - q.w) / (p.w - q.w));
       vec2 along = (q.xy / q.w - p.xy / p.w) * screen; float n = length(along); along = n > 0.0 ? along / n : vec2(1.0, 0.0);
       vec4 end = (gl_VertexID & 1) == 0 ? p : q; float side = gl_VertexID < 2 ? -1.0 : 1.0;
       end.xy += side * width * vec2(-along.y, along.x) / screen * end.w; gl_Position = end; tint = colour;
     }`,
    `in vec3 tint; out vec4 shown; void main() { shown = vec4(tint, 1.0); }`);

  function bytes(text) {
    const plain = atob(text), made = new Uint8Array(plain.length);
    for (let k = 0; k < plain.length; k++) made[k] = plain.charCodeAt(k);
    return made;
  }
  function buffer(data) {
    const made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return made;
  }
  function attribute(location, store, kind, normalised, stride = 0, offset = 0, divisor = 0) {
    gl.bindBuffer(gl.ARRAY_BUFFER, store);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, 3, kind, normalised, stride, offset);
    gl.vertexAttribDivisor(location, divisor);
  }
  function cloud(given) {
    if (!given || !given.count) return null;
    const xyz = new Uint16Array(bytes(given.xyz).buffer), array = gl.createVertexArray();
    gl.bindVertexArray(array);
    attribute(0, buffer(xyz), gl.UNSIGNED_SHORT, true);
    attribute(1, buffer(bytes(given.rgb)), gl.UNSIGNED_BYTE, true);
    return { array, xyz, count: given.count, of: given.of };
  }

  let space, shown, eye, chosen = -1, asked = false, moved = false, legend = "";
  const loaded = new Map();
  function load(number) {
    if (!loaded.has(number)) {
      const given = spaces[number];
      loaded.set(number, {
        points: cloud(given.points), dense: cloud(given.dense), images: given.images, number: given.number, home: given.home,
        frusta: new Float32Array(bytes(given.frusta).buffer), lines: null,
      });
    }
    space = loaded.get(number);
    find("dense").checked = Boolean(space.dense);
    find("dense").disabled = !space.dense;
    find("points").checked = !space.dense;
    chosen = -1;
    colourCameras();
    home();
  }

  function ramp(share) {
    const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2);
    return RAMP[low].map((value, k) => value + (at - low) * (RAMP[low + 1][k] - value));
  }
  function colourCameras() {
    const kind = find("colour").value, values = space.images.map((row) => images[row][kind] ?? 0);
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const say = (value) => kind === "error" ? `${value.toFixed(2)} px` : `${value.toLocaleString("en")} points`;
    legend = kind === "model" ? "" : `Cameras from violet (${say(low)}) to yellow (${say(high)}).`;
    const colourOf = (view) => {
      if (view === chosen) return CHOSEN;
      if (kind !== "model") return ramp((values[view] - low) / Math.max(high - low, 1e-12));
      return images[space.images[view]].weak ? WEAK : MODEL_COLOURS[space.number % MODEL_COLOURS.length];
    };
    const edges = [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]], count = space.images.length;
    const data = new Float32Array(count * edges.length * 9);
    for (let view = 0, at = 0; view < count; view++) {
      const colour = colourOf(view), corner = (k) => space.frusta.subarray((view * 5 + k) * 3, (view * 5 + k) * 3 + 3);
      for (const [a, b] of edges) {
        data.set(corner(a), at); data.set(corner(b), at + 3); data.set(colour, at + 6);
        at += 9;
      }
    }
    if (space.lines) gl.deleteBuffer(space.lines.store);
    const array = space.lines ? space.lines.array : gl.createVertexArray(), store = buffer(data);
    gl.bindVertexArray(array);
    attribute(0, store, gl.FLOAT, false, 36, 0, 1);
    attribute(1, store, gl.FLOAT, false, 36, 12, 1);
    attribute(2, store, gl.FLOAT, false, 36, 24, 1);
    space.lines = { array, store, count: count * edges.length };
    draw();
  }

  /* The eye turns about a target: azimuth of the viewing direction about z, elevation above the horizon, distance. */
  function home() {
    moved = false;
    eye = { target: [0, 0, 0], azimuth: space.home.azimuth, elevation: 0.34, distance: 1 };
    /* With u, v, w along right, up and ahead, a point is in the picture if |u - u0| <= tan_x (w - w0), and so for v: the
       foremost place of the eye follows from the extremes of u -+ tan_x w and v -+ tan_y w. It stays away from what is
       closest, which would look huge, and is shifted sideways until the extremes are equally far from the sides. */
    const { ahead, right, up } = axes(), tan = Math.tan(FIELD / 2) * 0.9;
    const tans = [tan * Math.max(canvas.clientWidth, 1) / Math.max(canvas.clientHeight, 1), tan];
    const seen = corners().map((p) => [dot(p, right), dot(p, up), dot(p, ahead)]);
    const most = (f) => seen.reduce((best, p) => Math.max(best, f(p)), -Infinity), least = (f) => -most((p) => -f(p));
    const bounds = tans.map((t, k) => [most((p) => p[k] - t * p[2]), least((p) => p[k] + t * p[2])]);
    const near = least((p) => p[2]), far = most((p) => p[2]);
    const w0 = Math.min(near - 0.25 * (far - near), ...bounds.map(([a, b], k) => (b - a) / (2 * tans[k])));
    const place = bounds.map(([a, b]) => (a + b) / 2);
    for (let round = 0; round < 8; round++)
      for (const k of [0, 1]) {
        const slope = (p) => (p[k] - place[k]) / (p[2] - w0);
        place[k] += (most(slope) + least(slope)) / 2 * (near - w0);
      }
    eye.distance = Math.max(seen.map((p) => p[2]).sort((a, b) => a - b)[seen.length >> 1] - w0, 0.05);
    eye.target = [0, 1, 2].map((k) => place[0] * right[k] + place[1] * up[k] + (w0 + eye.distance) * ahead[k]);
    draw();
  }
  /* What should be in the picture at first: all cameras, and the bulk of the points. */
  function corners() {
    const found = [], { low, high } = space.home, layer = space.dense || space.points;
    for (let k = 0; k < space.frusta.length; k += 3) found.push([...space.frusta.subarray(k, k + 3)]);
    for (let k = 0; layer && k < layer.count; k += Math.ceil(layer.count / 3000)) {
      const p = [0, 1, 2].map((c) => layer.xyz[3 * k + c] / 65535 * 2 - 1);
      if (p.every((v, c) => v >= low[c] && v <= high[c])) found.push(p);
    }
    return found;
  }
  function axes() {
    const { azimuth, elevation } = eye, c = Math.cos(elevation);
    const ahead = [Math.cos(azimuth) * c, Math.sin(azimuth) * c, -Math.sin(elevation)];
    const right = [Math.sin(azimuth), -Math.cos(azimuth), 0];
    const up = [right[1] * ahead[2], -right[0] * ahead[2], right[0] * ahead[1] - right[1] * ahead[0]];
    return { ahead, right, up };
  }
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  function clip() {
    const { ahead, right, up } = axes(), place = eye.target.map((t, k) => t - eye.distance * ahead[k]);
    const f = 1 / Math.tan(FIELD / 2), aspect = canvas.width / canvas.height, near = eye.distance * 0.01, far = eye.distance + 8;
    const a = (far + near) / (far - near), b = -2 * far * near / (far - near), m = new Float32Array(16);
    for (let k = 0; k < 3; k++) {
      m[4 * k] = right[k] * f / aspect; m[4 * k + 1] = up[k] * f; m[4 * k + 2] = ahead[k] * a; m[4 * k + 3] = ahead[k];
    }
    m[12] = -dot(right, place) * f / aspect; m[13] = -dot(up, place) * f; m[14] = -dot(ahead, place) * a + b;
    m[15] = -dot(ahead, place);
    return m;
  }

  function draw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(paint);
  }
  function paint() {
    asked = false;
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    const [r, g, b] = getComputedStyle(box).backgroundColor.match(/[\d.]+/g).map((v) => v / 255);
    gl.clearColor(r, g, b, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const matrix = clip(), parts = [];
    gl.useProgram(dots);
    gl.uniformMatrix4fv(gl.getUniformLocation(dots, "clip"), false, matrix);
    gl.uniform1f(gl.getUniformLocation(dots, "pixels"), eye.distance);
    for (const kind of ["dense", "points"]) {
      const layer = space[kind];
      if (!layer || !find(kind).checked) continue;
      const size = Number(find("size").value) * ratio * (kind === "points" ? 1.25 : 1);
      gl.uniform1f(gl.getUniformLocation(dots, "size"), Math.max(size, 1));
      gl.bindVertexArray(layer.array);
      gl.drawArrays(gl.POINTS, 0, layer.count);
      parts.push(`${layer.count.toLocaleString("en")} of ${layer.of.toLocaleString("en")} ${kind === "dense" ? "dense" : "sparse"} points`);
    }
    if (find("cameras").checked) {
      gl.useProgram(strokes);
      gl.uniformMatrix4fv(gl.getUniformLocation(strokes, "clip"), false, matrix);
      gl.uniform2f(gl.getUniformLocation(strokes, "screen"), width, height);
      gl.uniform1f(gl.getUniformLocation(strokes, "width"), 1.4 * ratio);
      gl.bindVertexArray(space.lines.array);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, space.lines.count);
    }
    gl.bindVertexArray(null);
    find("shown").textContent = `${parts.length ? `Shown: ${parts.join(", ")}.` : ""} ${legend}`;
    shown = matrix;
  }

  /* Where a place of the cube is on the canvas, in CSS pixels; null behind the eye. */
  function onCanvas(x, y, z) {
    const m = shown, w = m[3] * x + m[7] * y + m[11] * z + m[15];
    if (w <= 0) return null;
    return [((m[0] * x + m[4] * y + m[8] * z + m[12]) / w + 1) / 2 * canvas.clientWidth,
            (1 - (m[1] * x + m[5] * y + m[9] * z + m[13]) / w) / 2 * canvas.clientHeight, w];
  }
  function cameraAt(x, y) {
    let best = -1, least = 14;
    if (!find("cameras").checked) return best;
    for (let view = 0; view < space.images.length; view++) {
      const at = onCanvas(...space.frusta.subarray(view * 15, view * 15 + 3));
      const distance = at ? Math.hypot(at[0] - x, at[1] - y) : Infinity;
      if (distance < least) { best = view; least = distance; }
    }
    return best;
  }
  function pointAt(x, y) {
    let best = null, least = Infinity;
    for (const kind of ["dense", "points"]) {
      const layer = space[kind];
      if (!layer || !find(kind).checked) continue;
      for (let k = 0; k < layer.xyz.length; k += 3) {
        const p = [0, 1, 2].map((c) => layer.xyz[k + c] / 65535 * 2 - 1), at = onCanvas(...p);
        if (!at || Math.abs(at[0] - x) > 10 || Math.abs(at[1] - y) > 10) continue;
        const cost = Math.hypot(at[0] - x, at[1] - y) / 10 + 2 * at[2] / eye.distance;
        if (cost < least) { best = p; least = cost; }
      }
    }
    return best;
  }

  const turn = (dx, dy) => {
    moved = true;
    eye.azimuth -= dx * 0.006;
    eye.elevation = Math.min(Math.max(eye.elevation + dy * 0.006, -1.55), 1.55);
    draw();
  };
  const shift = (dx, dy) => {
    moved = true;
    const { right, up } = axes(), step = 2 * eye.distance * Math.tan(FIELD / 2) / canvas.clientHeight;
    eye.target = eye.target.map((t, k) => t - dx * step * right[k] + dy * step * up[k]);
    draw();
  };
  const zoom = (factor) => { moved = true; eye.distance = Math.min(Math.max(eye.distance * factor, 0.005), 20); draw(); };

  const pointers = new Map();
  let travelled = 0;
  const local = (event) => { const r = canvas.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, local(event));
    travelled = 0;
    tip.hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = local(event), before = pointers.get(event.pointerId);
    if (!before) return hover(at);
    const [dx, dy] = [at[0] - before[0], at[1] - before[1]], others = [...pointers].filter(([id]) => id !== event.pointerId);
    travelled += Math.abs(dx) + Math.abs(dy);
    pointers.set(event.pointerId, at);
    if (others.length) {
      const other = others[0][1], gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoom(Math.max(gap(before), 1) / Math.max(gap(at), 1));
      shift(dx / 2, dy / 2);
    } else if (event.buttons & 6 || event.shiftKey || event.ctrlKey) shift(dx, dy);
    else turn(dx, dy);
  });
  for (const kind of ["pointerup", "pointercancel"])
    canvas.addEventListener(kind, (event) => {
      if (kind === "pointerup" && travelled < 4 && pointers.size === 1 && event.button === 0) {
        const view = cameraAt(...local(event));
        document.dispatchEvent(new CustomEvent("choose", { detail: { image: view < 0 ? -1 : space.images[view], from: "view" } }));
      }
      pointers.delete(event.pointerId);
    });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaMode ? event.deltaY * 30 : event.deltaY)) * 0.002));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => {
    const point = pointAt(...local(event));
    if (point) { moved = true; eye.target = point; draw(); }
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-24, 0], ArrowRight: [24, 0], ArrowUp: [0, -24], ArrowDown: [0, 24] }[event.key];
    if (step) (event.shiftKey ? shift : turn)(...step);
    else if (event.key === "+" || event.key === "=") zoom(0.87);
    else if (event.key === "-") zoom(1.15);
    else if (event.key === "0" || event.key === "Home") home();
    else return;
    event.preventDefault();
  });
  function hover(at) {
    const view = cameraAt(...at);
    tip.hidden = view < 0;
    if (view < 0) return;
    const image = images[space.images[view]];
    tip.textContent = `${image.name}: ${image.points.toLocaleString("en")} points` + (image.weak ? ", weakly held" : "");
    tip.style.left = `${Math.min(at[0] + 14, canvas.clientWidth * 0.7)}px`;
    tip.style.top = `${Math.max(at[1] - 30, 4)}px`;
  }

  find("model").addEventListener("change", (event) => load(Number(event.target.value)));
  find("model").closest("label").hidden = spaces.length < 2;
  find("colour").addEventListener("change", colourCameras);
  find("home").addEventListener("click", home);
  for (const name of ["dense", "points", "cameras", "size"]) find(name).addEventListener("input", draw);
  document.addEventListener("choose", ({ detail }) => {
    const number = spaces.findIndex((entry) => entry.images.includes(detail.image));
    if (number >= 0 && loaded.get(number) !== space) { find("model").value = number; load(number); }
    chosen = space.images.indexOf(detail.image);
    colourCameras();
  });
  new ResizeObserver(() => (moved ? draw : home)()).observe(canvas);  // a view that nobody has turned still fits
  (function watchSharpness() {  // a window moved to another screen
    matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`)
      .addEventListener("change", () => { draw(); watchSharpness(); }, { once: true });
  })();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", paint);
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    message.textContent = "The graphics context was lost. Reload the page to see the 3D view again.";
    message.hidden = false;
  });
  load(0);
})();
