// Captions as captions.py has them: what a sentence demands of a scene, what may follow it, and whether a scene obeys. The
// tables (words, shapes, ...) are those of tables.py.

// How alike two words are, twice the letters of their common pieces over all letters, as Python's difflib counts: the longest
// piece first, the earliest of equally long ones, then those on either side of it
export function likeness(a, b) {
  const common = (a, b) => {
    let [best, i, j] = [0, 0, 0];
    for (let p = 0; p < a.length; p++)
      for (let q = 0; q < b.length; q++) {
        let n = 0;
        while (p + n < a.length && q + n < b.length && a[p + n] === b[q + n]) n++;
        if (n > best) [best, i, j] = [n, p, q];
      }
    if (!best) return 0;
    return best + common(a.slice(0, i), b.slice(0, j)) + common(a.slice(i + best), b.slice(j + best));
  };
  return (2 * common(a, b)) / (a.length + b.length);
}

export function nearest(word, words) {
  let [best, found] = [-1, ""];
  for (const known of words) {
    const alike = likeness(known, word);
    if (alike > best || (alike === best && known > found)) [best, found] = [alike, known];
  }
  return found;
}

const quoted = (word) => {
  const mark = word.includes("'") && !word.includes('"') ? '"' : "'";
  return mark + word.replaceAll("\\", "\\\\").replaceAll(mark, `\\${mark}`) + mark;
};

export const wordsOf = (caption) => caption.toLowerCase().replace(/[,.]/g, " ").split(/\s+/).filter(Boolean);

// What the caption demands: { things: [{ shape, color, size }], relation, background }. Throws with the sentences of Python's
// `parse`; an error about a word has { word, near }. `next` collects what could stand where the caption ends.
export function parse(tables, caption, next = []) {
  const words = wordsOf(caption);
  const keys = (table) => Object.keys(table);
  for (const word of words)
    if (!tables.words.includes(word)) {
      const near = nearest(word, tables.words);
      const message = `${quoted(word)} is not among the ${tables.words.length} words; the nearest is ${quoted(near)}`;
      throw Object.assign(new RangeError(message), { word, near });
    }

  const maybe = (options) => {
    if (!words.length) next.push(...options);
    for (const option of options) {
      const said = option.split(" ");
      if (said.every((word, i) => words[i] === word)) {
        words.splice(0, said.length);
        return option;
      }
      if (words.length && words.length < said.length && words.every((word, i) => word === said[i]))
        next.push(said.slice(words.length).join(" ")); // begun
    }
    return null;
  };
  const need = (options) => {
    const found = maybe(options);
    if (found !== null) return found;
    const came = words.length ? quoted(words[0]) : "the end";
    throw new RangeError(`expected ${options.map(quoted).join(" or ")}, got ${came}`);
  };
  const thing = (many) => {
    const size = maybe(keys(tables.sizes));
    const color = maybe(keys(tables.colors));
    const names = Object.fromEntries(
      Object.entries(tables.shapes).map(([shape, shapes]) => [many > 1 ? shapes : shape, shape]),
    );
    return { shape: names[need(keys(names))], color, size };
  };

  const many = tables.numbers[need(["a", "an", ...keys(tables.numbers)])] ?? 1;
  const first = thing(many);
  const things = Array.from({ length: many }, () => first);
  let relation = null;
  if (many === 1) relation = maybe(["and", ...keys(tables.relations)]);
  if (relation) {
    need(["a", "an"]);
    things.push(thing(1));
  }
  const background = maybe(["on"]) ? need(keys(tables.backgrounds)) : null;
  if (words.length) throw new RangeError(`expected the caption to end before ${quoted(words.join(" "))}`);
  return { things, relation: relation === "and" ? null : relation, background };
}

// What may follow the words of a caption that is fine so far: { complete, next }, or { complete: false, next: [], error }
export function continued(tables, caption) {
  const next = [];
  try {
    parse(tables, caption, next);
    return { complete: true, next: [...new Set(next)] };
  } catch (error) {
    const ended = / got the end$/.test(error.message) || next.length;
    return { complete: false, next: ended ? [...new Set(next)] : [], error };
  }
}

const same = (a, b) => a.shape === b.shape && a.color === b.color && a.size === b.size;
const words = (...parts) => parts.filter(Boolean).join(" ");
export function named({ size, color, shape }) {
  const name = words(size, color, shape);
  return `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;
}

// The caption that demands this: the inverse of parse
export function sentence(tables, { things, relation, background }) {
  const [first, second] = things;
  let said = named(first);
  if (things.length === 2 && (relation || !same(first, second)))
    said = words(said, relation ?? "and", named(second));
  else if (things.length > 1) {
    const number = Object.keys(tables.numbers).find((word) => tables.numbers[word] === things.length);
    said = words(number, first.size, first.color, tables.shapes[first.shape]);
  }
  return background ? `${said} on ${background}` : said;
}

// The number of each word of a caption, and 0 where none is left
export function tokens(tables, caption) {
  const found = caption.split(" ").map((word) => tables.words.indexOf(word) + 1);
  return [...found, ...Array(tables.longest - found.length).fill(0)];
}

// Whether the first object lies so of the second
export const holds = (tables, relation, first, second) =>
  tables.relations[relation].reduce(
    (sum, d, axis) => sum + d * (first.center[axis] - second.center[axis]),
    0,
  ) >= tables.apart;

// Whether a scene { background, objects } is what a caption demands: no thing less, none more, in some order
export function obeys(tables, scene, { things, relation, background }) {
  if (scene.objects.length !== things.length || (background && background !== scene.background)) return false;
  const fits = (thing, object) =>
    thing.shape === object.shape &&
    [null, object.color].includes(thing.color) &&
    [null, object.size].includes(thing.size);
  const orders = (left) =>
    left.length
      ? left.flatMap((one, i) => orders(left.filter((_, j) => j !== i)).map((rest) => [one, ...rest]))
      : [[]];
  return orders(scene.objects).some(
    (order) =>
      things.every((thing, i) => fits(thing, order[i])) &&
      (!relation || holds(tables, relation, order[0], order[1])),
  );
}

// A scene in words, for readers: with the relation that was asked for if it holds, else one that does
export function told(tables, { background, objects }, asked) {
  const on = background === tables.unknown ? "a background of no known color" : background;
  if (!objects.length) return `nothing on ${on}`;
  const name = ({ shape, color, size }) => {
    const known = (part) => (part === tables.unknown ? null : part);
    return named({
      size: known(size),
      color: known(color),
      shape: known(shape) ?? "thing of no known shape",
    });
  };
  if (objects.length === 2) {
    const relations = [asked, ...Object.keys(tables.relations)].filter(Boolean);
    for (const relation of relations)
      for (const [first, second] of [objects, [...objects].reverse()])
        if (holds(tables, relation, first, second))
          return `${name(first)} ${relation} ${name(second)} on ${on}`;
  }
  const names = objects.map(name);
  return `${names.length > 1 ? `${names.slice(0, -1).join(", ")} and ` : ""}${names.at(-1)} on ${on}`;
}
