// What is seen, kept in the address, so that a reload or a copied link shows the same. What is as usual is left out.

export const asked = (name) => new URLSearchParams(location.search).get(name);

export function remember(name, value) {
  const url = new URL(location);
  if (value === null || value === "") url.searchParams.delete(name);
  else url.searchParams.set(name, value);
  history.replaceState(history.state, "", url);
}
