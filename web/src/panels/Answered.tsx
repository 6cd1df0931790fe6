// What stands where an answer is awaited, or did not come.

import type { ComponentChildren, JSX } from "preact";
import type { Answer } from "../store/query";

export function Answered<T>({ answer, children, empty }: { answer: Answer<T>; children: (value: T) => ComponentChildren; empty?: string }): JSX.Element {
    if (answer.value !== null) {
        return (
            <>
                {answer.error && <p class="banner caution">{answer.error}</p>}
                {children(answer.value)}
            </>
        );
    }
    if (answer.error) return <p class="empty"><strong>No answer.</strong> {answer.error}</p>;
    return <p class="empty" aria-busy={answer.asking ? "true" : "false"}>{answer.asking ? "Asking …" : empty ?? "Waiting for the heap …"}</p>;
}
