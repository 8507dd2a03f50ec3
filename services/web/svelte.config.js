/** Svelte's own defaults; the file exists so that every tool finds the same ones. */
export default {};
