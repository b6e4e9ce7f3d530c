// What draws in the page's worker: it is handed the tables and the weights once, then prompts, and posts the pictures so far
// after every step. Between steps it listens, so that it can be stopped, or asked for something else, at any time.

import { obeys, parse, sentence, tokens, told } from "./captions.js";
import { detector } from "./detector.js";
import { colorsOf, decoded, decoder, encoded, studentSteps, teacherSteps, textToImage } from "./networks.js";
import { seededNoise, TURN } from "./noise.js";
import { weightsOf } from "./weights.js";

export function painter(tables, post, pause) {
  const networks = {};
  const detect = detector(tables);
  const size = tables.network.latent.reduce((a, b) => a * b);
  let current = null;

  const pictures = (x) =>
    Array.from({ length: x.length / size }, (_, b) =>
      colorsOf(decoded(networks.decoder, x.subarray(b * size, (b + 1) * size))),
    );
  const pixels = (shown) => {
    const side = tables.side ** 2;
    const rgba = new Uint8ClampedArray(4 * side * shown.length).fill(255);
    shown.forEach((picture, b) => {
      for (let p = 0; p < side; p++)
        for (let c = 0; c < 3; c++) rgba[4 * (b * side + p) + c] = 255 * picture[3 * p + c];
    });
    return rgba;
  };

  return {
    take(name, base64) {
      const state = weightsOf(base64);
      networks[name] = name === "decoder" ? decoder(state) : textToImage(state, tables.network);
    },
    stop() {
      current = null;
    },
    // A job { id, caption, seed, count, method, scale, moments }: `count` pictures of one caption from the noise of one seed
    async draw({ id, caption, seed, count, method, scale, moments }) {
      current = id;
      const demand = parse(tables, caption);
      const net = networks[method];
      const encode = (text) => encoded(net, text ? tokens(tables, text) : Array(tables.longest).fill(0));
      const texts = { told: encode(sentence(tables, demand)), moments };
      const noise = (turn) => seededNoise(seed, count * size, turn * TURN);
      const x_0 = noise(0);
      const steps =
        method === "student"
          ? studentSteps(net, x_0, { ...texts, again: noise })
          : teacherSteps(net, x_0, { ...texts, empty: encode(""), scale });
      const show = (step, shown, more = {}) =>
        post({ id, step, steps: moments.length - 1, pixels: pixels(shown), ...more });
      show(0, pictures(x_0));
      for (;;) {
        await pause();
        if (current !== id) return;
        const { value, done } = steps.next();
        if (done) return;
        const shown = pictures(value.x);
        if (value.step < value.steps) show(value.step, shown);
        else {
          const scenes = shown.map(detect);
          show(value.step, shown, {
            found: scenes.map((scene) => ({
              said: told(tables, scene, demand.relation),
              obeyed: obeys(tables, scene, demand),
            })),
          });
        }
      }
    },
  };
}

// In a worker: messages { tables }, { name, base64 }, { stop }, or a job
export function serve(worker) {
  let own;
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  worker.onmessage = ({ data }) => {
    if (data.tables) own = painter(data.tables, (message) => worker.postMessage(message), pause);
    else if (data.name) own.take(data.name, data.base64);
    else if (data.stop) own.stop();
    else own.draw(data).catch((error) => worker.postMessage({ id: data.id, error: error.message }));
  };
}
