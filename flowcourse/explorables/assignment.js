// Who goes to whom at the least total cost: the linear assignment problem, by shortest augmenting paths (Jonker
// and Volgenant 1987).

// For each column the row that it is given; `costs` (n, n) has one row after the other. Potentials v of the columns keep every
// row's own column the cheapest of costs[i][j] - v[j].
export function assignment(costs) {
  const n = Math.round(Math.sqrt(costs.length));
  const v = new Float64Array(n);
  const row = new Int32Array(n).fill(-1); // of each column
  const column = new Int32Array(n).fill(-1); // of each row
  reduceColumns(costs, n, v, row, column);
  for (let i = 0; i < n; i++) if (column[i] < 0) augment(costs, n, v, row, column, i);
  return row;
}

// Each column goes to its cheapest row, unless that has one.
function reduceColumns(costs, n, v, row, column) {
  for (let j = n - 1; j >= 0; j--) {
    let least = 0;
    for (let i = 1; i < n; i++) if (costs[i * n + j] < costs[least * n + j]) least = i;
    v[j] = costs[least * n + j];
    if (column[least] < 0) [row[j], column[least]] = [least, j];
  }
}

// The shortest path from a free row over changes of columns to a free column, and those changes.
function augment(costs, n, v, row, column, start) {
  const away = new Float64Array(n).fill(Infinity);
  const before = new Int32Array(n); // the row from which the path came
  const done = new Uint8Array(n);
  const passed = [];
  let i = start;
  let mu = 0;
  let end = -1;
  while (end < 0) {
    const at = i * n;
    const base = i === start ? 0 : costs[at + column[i]] - v[column[i]] - mu;
    let next = -1;
    let least = Infinity;
    for (let j = 0; j < n; j++) {
      if (done[j]) continue;
      const cost = costs[at + j] - v[j] - base;
      if (cost < away[j]) {
        away[j] = cost;
        before[j] = i;
      }
      if (away[j] < least) {
        least = away[j];
        next = j;
      }
    }
    if (next < 0) throw new RangeError("costs must be finite");
    mu = least;
    if (row[next] < 0) end = next;
    else {
      done[next] = 1;
      passed.push(next);
      i = row[next];
    }
  }
  for (const j of passed) v[j] += away[j] - mu;
  for (let j = end; j >= 0; ) {
    i = before[j];
    const left = i === start ? -1 : column[i];
    [row[j], column[i]] = [i, j];
    j = left;
  }
}

// |a_i - b_j|^2 (n, n) of points of the plane, flat
export function squaredDistances(a, b, n = a.length / 2) {
  const costs = new Float64Array(n * n);
  for (let i = 0, q = 0; i < n; i++)
    for (let j = 0; j < n; j++) costs[q++] = (a[2 * i] - b[2 * j]) ** 2 + (a[2 * i + 1] - b[2 * j + 1]) ** 2;
  return costs;
}

// The 2-Wasserstein distance between two samples of one size
export function wasserstein2(a, b) {
  const costs = squaredDistances(a, b);
  const n = a.length / 2;
  const row = assignment(costs);
  return Math.sqrt(row.reduce((sum, i, j) => sum + costs[i * n + j], 0) / n);
}
