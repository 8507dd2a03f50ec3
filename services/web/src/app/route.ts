/** Where the person is: kept behind `#`, so that the server never learns a thread's name from an address. */

export type Route =
  | { readonly view: "machines" }
  | { readonly view: "threads"; readonly machineId: string }
  | { readonly view: "thread"; readonly machineId: string; readonly threadId: string }
  | { readonly view: "new-thread"; readonly machineId: string }
  | { readonly view: "machine"; readonly machineId: string }
  | { readonly view: "account" }
  | { readonly view: "audit" };

export function parseRoute(hash: string): Route {
  const [head, machineId, page, threadId] = hash.replace(/^#\/?/, "").split("/").map(decode);
  if (head === "account") return { view: "account" };
  if (head === "audit") return { view: "audit" };
  if (head !== "m" || !machineId) return { view: "machines" };
  if (page === "t" && threadId) return { view: "thread", machineId, threadId };
  if (page === "new") return { view: "new-thread", machineId };
  if (page === "about") return { view: "machine", machineId };
  return { view: "threads", machineId };
}

export function href(route: Route): string {
  switch (route.view) {
    case "machines":
      return "#/";
    case "threads":
      return `#/m/${route.machineId}`;
    case "thread":
      return `#/m/${route.machineId}/t/${encodeURIComponent(route.threadId)}`;
    case "new-thread":
      return `#/m/${route.machineId}/new`;
    case "machine":
      return `#/m/${route.machineId}/about`;
    case "account":
      return "#/account";
    case "audit":
      return "#/audit";
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
