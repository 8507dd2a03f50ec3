/** Days as a date field gives them. */

const DATE = /^(\d{4})-(\d{2})-(\d{2})$/;

/** When a day begins where this browser is, so many days later; nothing for what is no day. */
export function dayMs(text: string, daysLater: number): number | undefined {
  const match = DATE.exec(text);
  if (match === null) return undefined;
  const [year, month, day] = match.slice(1).map(Number) as [number, number, number];
  const time = new Date(year, month - 1, day + daysLater).getTime();
  return Number.isNaN(time) || time < 0 ? undefined : time;
}
