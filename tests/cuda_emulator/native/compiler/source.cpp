#include "source.h"

#include <cctype>
#include <cstring>
#include <set>

namespace cuda_emulator {
namespace {

struct Token {
  std::string text;
  size_t begin, end;
  bool is_word;
};
using Tokens = std::vector<Token>;

bool of_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

size_t end_of_literal(const std::string& text, size_t at) {
  char quote = text[at++];
  while (at < text.size() && text[at] != quote) at += text[at] == '\\' ? 2 : 1;
  return std::min(at + 1, text.size());
}

// Words, literals, and single characters of all else, without spaces and comments.
Tokens tokens_of(const std::string& text) {
  Tokens found;
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    if (!text.compare(i, 2, "//")) {
      i = std::min(text.find('\n', i), text.size());
      continue;
    }
    if (!text.compare(i, 2, "/*")) {
      size_t close = text.find("*/", i + 2);
      i = close == std::string::npos ? text.size() : close + 2;
      continue;
    }
    if (isspace((unsigned char)text[i])) {
      i++;
      continue;
    }
    bool word = of_word(text[i]);
    // An apostrophe within a number separates digits.
    if (word)
      while (end < text.size() && (of_word(text[end]) || (isdigit((unsigned char)text[i]) && text[end] == '\''))) end++;
    else if (text[i] == '"' || text[i] == '\'')
      end = end_of_literal(text, i);
    found.push_back({text.substr(i, end - i), i, end, word});
    i = end;
  }
  return found;
}

// The position after the bracket that closes the one at i.
size_t after_bracket(const Tokens& t, size_t i) {
  const char* kind = t[i].text == "(" ? "()" : t[i].text == "{" ? "{}" : "[]";
  for (int depth = 0; i < t.size(); i++) {
    if (t[i].text[0] == kind[0] && !t[i].is_word) depth++;
    if (t[i].text[0] == kind[1] && !t[i].is_word && --depth == 0) return i + 1;
  }
  return t.size();
}

// The definition of a kernel: the positions of its name and of the brackets of its body.
struct Definition {
  size_t name, body, end;
  bool found = false;
};

Definition definition_at(const Tokens& t, size_t global) {
  for (size_t i = global + 1; i + 1 < t.size(); i++) {
    if (t[i].text == ";" || t[i].text == "{") break;
    if (!t[i].is_word || t[i + 1].text != "(") continue;
    size_t after = after_bracket(t, i + 1);
    if (t[i].text == "__launch_bounds__" || t[i].text == "__attribute__") {
      i = after - 1;
      continue;
    }
    if (after >= t.size() || t[after].text != "{") break;  // a declaration
    return {i, after, after_bracket(t, after), true};
  }
  return {};
}

bool is_extern_c(const Tokens& t, size_t i) { return i >= 2 && t[i - 1].text == "\"C\"" && t[i - 2].text == "extern"; }

// Whether a macro holds a word.
bool in_macro(const std::string& text, const std::string& word) {
  for (size_t at = text.find("#define"); at != std::string::npos; at = text.find("#define", at + 1)) {
    size_t end = at;
    do end = text.find('\n', end + 1);
    while (end != std::string::npos && text[end - 1] == '\\');
    for (auto& token : tokens_of(text.substr(at, end - at)))
      if (token.text == word) return true;
  }
  return false;
}

// Dynamic shared memory, `extern __shared__ T name[];`, is another name for the address of the device's.
std::string with_dynamic_shared(const std::string& text, const Tokens& t) {
  std::string changed;
  size_t copied = 0;
  for (size_t i = 0; i + 1 < t.size(); i++) {
    if (t[i].text != "extern" || t[i + 1].text != "__shared__") continue;
    size_t type = i + 2;
    if (t[type].text == "__align__" || t[type].text == "alignas") type = after_bracket(t, type + 1);
    size_t open = type;
    while (open < t.size() && t[open].text != "[") open++;
    if (open + 2 >= t.size()) break;
    std::string of = text.substr(t[type].begin, t[open - 1].begin - t[type].begin);
    changed += text.substr(copied, t[i].begin - copied) + of + "*& " + t[open - 1].text + " = (" + of +
               "*&)cuda_emulator::place.dynamic_shared;";
    copied = t[open + 2].end;
  }
  return changed + text.substr(copied);
}

}  // namespace

Source read_source(const std::string& text) {
  Tokens t = tokens_of(text);
  Source found{with_dynamic_shared(text, t), {}, false};
  std::set<std::string> words;
  bool extern_c_block = false, returns = in_macro(text, "return");
  for (size_t i = 0; i < t.size(); i++) {
    words.insert(t[i].text);
    extern_c_block |= t[i].text == "{" && is_extern_c(t, i);
    if (t[i].text != "__global__") continue;
    Definition kernel = definition_at(t, i);
    if (!kernel.found) continue;
    for (size_t k = kernel.body; k < kernel.end; k++) returns |= t[k].text == "return";
    bool is_template = i && t[i - 1].text == ">";
    if (!is_template && (extern_c_block || is_extern_c(t, i))) found.kernels.push_back(t[kernel.name].text);
  }
  bool tells_apart = false;
  for (const char* word : {"threadIdx", "blockIdx", "blockDim", "gridDim", "__shared__"}) tells_apart |= words.count(word);
  found.one_thread_is_all = words.count("CUPY_FOR") && !tells_apart && !returns;
  return found;
}

}  // namespace cuda_emulator
