// The texts of the frontend, from locales/<language>/main.json.

const words = { en: {}, zh: {} };
let language = "en";

/** Load the words. @param {(path: string) => Promise<Response>} fetchApi */
export async function loadText(fetchApi, locale) {
  const answer = await fetchApi("/i18n");
  const all = answer.ok ? await answer.json() : {};
  for (const name of Object.keys(words)) words[name] = all[name]?.wan22 ?? {};
  language = String(locale ?? "en").split("-")[0] in words ? String(locale).split("-")[0] : "en";
}

/** The words under `key` in the page's language, with {name} replaced; the key itself where there are none. */
export function text(key, values = {}) {
  const found = words[language].plot?.[key] ?? words.en.plot?.[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The label of a combo's value. */
export function comboLabel(value) {
  const key = String(value).replaceAll(".", "_"); // ComfyUI takes dots for paths
  return words[language].combos?.[key] ?? words.en.combos?.[key] ?? String(value);
}
