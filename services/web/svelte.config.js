/** How Svelte compiles the components. */
export default {
  compilerOptions: {
    // Elements are made one by one: the content security policy allows no assignment of HTML text at all.
    fragments: "tree",
  },
};
