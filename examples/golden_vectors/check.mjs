// Check backpropagation through time in JavaScript against golden vectors.
//
//     node check.mjs golden_float64.json
//
// Put your own code in the place of bptt. docs/golden-vectors.md describes the file.
// Exit code 0: all match; 1: something does not; 2: the file cannot be used.

import { readFileSync } from "node:fs";

// Return the states, the outputs, the loss and every gradient. Arrays are stored row by row:
// W[i][j] is W[i * H + j], and x of step t and sequence s starts at ((t - 1) * B + s) * D.
// The states h[0..T] have one step more than x. Every result is rounded by round.
function bptt({ T, B, D, H, O }, lastStep, { W, U, b, V, c, x, h0, target }, round) {
  const zeros = (...sizes) => new Float64Array(sizes.reduce((n, size) => n * size, 1));
  const add = (array, i, left, right) => {
    array[i] = round(array[i] + round(left * right));
  };
  const h = zeros(T + 1, B, H), y = zeros(T, B, O), loss = zeros();
  const dW = zeros(H, H), dU = zeros(H, D), db = zeros(H), dV = zeros(O, H), dc = zeros(O);
  const dx = zeros(T, B, D), dh = zeros(T + 1, B, H);

  h.set(h0);
  for (let t = 1; t <= T; t++) {
    for (let s = 0; s < B; s++) {
      const before = ((t - 1) * B + s) * H, now = (t * B + s) * H; // where the states start
      const input = ((t - 1) * B + s) * D, output = ((t - 1) * B + s) * O;
      const a = Float64Array.from(b);
      for (let i = 0; i < H; i++) {
        for (let j = 0; j < H; j++) add(a, i, W[i * H + j], h[before + j]);
        for (let j = 0; j < D; j++) add(a, i, U[i * D + j], x[input + j]);
        h[now + i] = round(Math.tanh(a[i])); // Eq. 1
      }
      y.set(c, output);
      for (let k = 0; k < O; k++) {
        for (let i = 0; i < H; i++) add(y, output + k, V[k * H + i], h[now + i]); // Eq. 2
      }
    }
  }
  for (let t = T; t >= 1; t--) {
    for (let s = 0; s < B; s++) {
      const before = ((t - 1) * B + s) * H, now = (t * B + s) * H;
      const input = ((t - 1) * B + s) * D, output = ((t - 1) * B + s) * O;
      const goal = lastStep ? s * O : output;
      for (let k = 0; k < O && (t === T || !lastStep); k++) {
        const error = round(y[output + k] - target[goal + k]);
        const dy = 2 * error;
        add(loss, 0, error, error); // Eq. 3
        add(dc, k, dy, 1);
        for (let i = 0; i < H; i++) {
          add(dV, k * H + i, dy, h[now + i]);
          add(dh, now + i, V[k * H + i], dy); // Eq. 4
        }
      }
      for (let i = 0; i < H; i++) {
        const slope = round(1 - round(h[now + i] * h[now + i]));
        const da = round(slope * dh[now + i]);
        add(db, i, da, 1);
        for (let j = 0; j < H; j++) {
          add(dW, i * H + j, da, h[before + j]);
          add(dh, before + j, W[i * H + j], da); // Eq. 5
        }
        for (let j = 0; j < D; j++) {
          add(dU, i * D + j, da, x[input + j]);
          add(dx, input + j, U[i * D + j], da);
        }
      }
    }
  }
  return { h, y, loss, dW, dU, db, dV, dc, dx, dh0: dh.slice(0, B * H), dh };
}

// The sizes of the axes of every array.
function shapes({ T, B, D, H, O }, lastStep) {
  const inputs = {
    W: [H, H], U: [H, D], b: [H], V: [O, H], c: [O], x: [T, B, D], h0: [B, H],
    target: lastStep ? [B, O] : [T, B, O],
  };
  const expected = {
    h: [T + 1, B, H], y: [T, B, O], loss: [], dW: [H, H], dU: [H, D], db: [H], dV: [O, H], dc: [O],
    dx: [T, B, D], dh0: [B, H], dh: [T + 1, B, H],
  };
  return { inputs, expected };
}

// Read a number such as -0x1.8p+1 exactly; Number() reads no hexadecimal fractions.
function hexadecimal(text) {
  const [, sign, whole, fraction = "", exponent] =
    /^(-?)0x([01])(?:\.([0-9a-f]{1,13}))?p([+-]\d+)$/.exec(text) ??
    fail(`${JSON.stringify(text)} is no hexadecimal number`);
  const magnitude = parseInt(whole + fraction, 16) * 2 ** (exponent - 4 * fraction.length);
  return sign ? -magnitude : magnitude;
}

function fail(message) {
  throw new Error(message);
}

// Return a member of an object.
function member(object, key) {
  return object?.[key] ?? fail(`"${key}" is missing`);
}

// Return one part of an array, after a look at its shape.
function numbers(array, part, shape, name) {
  const texts = member(array, part);
  const count = shape.reduce((n, size) => n * size, 1);
  if (String(member(array, "shape")) !== String(shape) || texts.length !== count)
    fail(`${name} is not of shape [${shape}]`);
  return Float64Array.from(texts, hexadecimal);
}

// Return the arrays that do not match, each in a line.
function check(vector, round) {
  const name = member(vector, "name"), loss = member(vector, "loss");
  const sizes = Object.fromEntries([..."TBDHO"].map((axis) => [axis, member(vector, axis)]));
  const lastStep = loss === "last_step_squared_error";
  if (!lastStep && loss !== "squared_error") fail(`${name}: the loss ${loss} is unknown`);
  const { inputs, expected } = shapes(sizes, lastStep);
  const given = {};
  for (const [k, shape] of Object.entries(inputs))
    given[k] = numbers(member(member(vector, "inputs"), k), "value", shape, `${name}: ${k}`);
  const got = bptt(sizes, lastStep, given, round);
  const lines = [];
  for (const [k, shape] of Object.entries(expected)) {
    const array = member(member(vector, "expected"), k);
    const [value, bound, tolerance] = ["value", "error_bound", "tolerance"].map((part) =>
      numbers(array, part, shape, `${name}: ${k}`),
    );
    const limit = value.map((_, i) => tolerance[i] + bound[i]);
    const right = Array.from(value, (v, i) => Math.abs(got[k][i] - v) <= limit[i]); // NaN is not
    const first = right.indexOf(false);
    const wrong = right.filter((r) => !r).length;
    if (wrong > 0)
      lines.push(
        `${name}: ${k}, entry ${first}, is ${got[k][first]}; expected ${value[first]} up to ` +
          `${limit[first].toPrecision(2)} (${wrong} of ${value.length} entries are wrong)`,
      );
  }
  return lines;
}

function main(path) {
  const file = JSON.parse(readFileSync(path, "utf8"));
  if (file?.schema !== "manual-bptt/golden-vectors" || file.version !== 1)
    fail("these are not golden vectors of version 1");
  const round = { float64: (number) => number, float32: Math.fround }[file.dtype];
  if (!round) fail(`the dtype ${file.dtype} is unknown`);
  const vectors = member(file, "vectors");
  if (!(vectors.length > 0)) fail("there are no vectors");
  const lines = vectors.flatMap((vector) => check(vector, round));
  const verdict = lines.length === 0 ? "all match" : `${lines.length} arrays do not match`;
  const count = `${vectors.length} vectors of ${file.dtype}, 8 gradients each`;
  console.log([...lines, `${count}: ${verdict}`].join("\n"));
  return lines.length === 0 ? 0 : 1;
}

if (process.argv.length !== 3) {
  console.error("usage: node check.mjs FILE.json");
  process.exitCode = 2;
} else {
  try {
    process.exitCode = main(process.argv[2]);
  } catch (error) {
    console.error(`check.mjs: ${process.argv[2]}: ${error.message.replace(/\s+/g, " ")}`);
    process.exitCode = 2;
  }
}
