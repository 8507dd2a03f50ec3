/** When asking a machine again later may help, and how soon. */
import { LOCAL, type Problem } from "../api/problem";

export const RETRY_AFTER_MS = 1_500;

const PASSING_CODES = new Set([1000, 1006, 1008, 1009, 1013, 1015, 1016, 4000, 4005, 4007, 4010, 4014, 4016, 6001, 6005]);

export function isPassing(problem: Problem): boolean {
  return PASSING_CODES.has(problem.code) || problem.code === LOCAL.connectionLost;
}
