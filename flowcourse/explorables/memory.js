// What takes time is computed once: remember(name, key, make) keeps the value under the name until the key changes.

export function memory() {
  const kept = {};
  const remember = (name, key, make) => {
    if (kept[name]?.key !== key) kept[name] = { key, value: make() };
    return kept[name].value;
  };
  // The value if it is there already
  remember.known = (name, key) => (kept[name]?.key === key ? kept[name].value : undefined);
  return remember;
}
