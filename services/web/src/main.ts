import "./styles/base.css";

import { mount } from "svelte";

import Root from "./views/Root.svelte";
import { app } from "./app/app.svelte";
import { takeEntry } from "./app/entry";
import { registerWorker } from "./app/worker";

const entry = takeEntry(location, history);
const target = document.getElementById("app");
if (target !== null) mount(Root, { target, props: { entry } });
void app.start();

// Another link to the same page changes the fragment only: it is taken like the first.
addEventListener("hashchange", () => {
  if (entry.page !== "app" && location.pathname !== "/" && location.hash !== "") location.reload();
});

if (import.meta.env.PROD) registerWorker();
