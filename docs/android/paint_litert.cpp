// A .tflite file in LiteRT, by its C API: the CompiledModel that replaces TensorFlow Lite's interpreter.
#include <memory>
#include <type_traits>

#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"
#include "picture.hpp"

namespace {

// Each LiteRT handle is a pointer; these free it when its scope ends.
template <typename Handle, void (*destroy)(Handle)>
struct Destroyer {
  void operator()(Handle handle) const { destroy(handle); }
};
template <typename Handle, void (*destroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroyer<Handle, destroy>>;
using Buffer = Owned<LiteRtTensorBuffer, LiteRtDestroyTensorBuffer>;

void check(LiteRtStatus status, const char* what) {
  if (status != kLiteRtStatusOk)
    throw std::runtime_error(std::string("LiteRT: ") + what + " gave status " + std::to_string(status));
}

// The value of `key` in our metadata: one JSON object of strings. An app would ask its JSON library.
std::string value_of(const std::string& json, const std::string& key) {
  const std::string before = '"' + key + "\": \"";
  const std::size_t at = json.find(before);
  if (at == std::string::npos) throw std::runtime_error("the file's metadata have no " + key);
  const std::size_t begin = at + before.size();
  return json.substr(begin, json.find('"', begin) - begin);
}

LiteRtRankedTensorType type_of(LiteRtTensor tensor) {
  LiteRtRankedTensorType type{};
  check(LiteRtGetRankedTensorType(tensor, &type), "a tensor's type");
  return type;
}

Buffer buffer_for(LiteRtEnvironment environment, const LiteRtRankedTensorType& type,
                  LiteRtTensorBufferRequirements needs) {
  LiteRtTensorBuffer made = nullptr;
  check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &made), "a buffer");
  return Buffer(made);
}

}  // namespace

Picture paint(const std::string& path, const Picture& picture) {
  // Once for an app: environment, model, compiled model and buffers can be kept and used again.
  LiteRtEnvironment raw_environment = nullptr;
  check(LiteRtCreateEnvironment(0, nullptr, &raw_environment), "the environment");
  Owned<LiteRtEnvironment, LiteRtDestroyEnvironment> environment(raw_environment);
  LiteRtModel raw_model = nullptr;
  check(LiteRtCreateModelFromFile(environment.get(), path.c_str(), &raw_model), "reading the model");
  Owned<LiteRtModel, LiteRtDestroyModel> model(raw_model);
  LiteRtOptions raw_options = nullptr;
  check(LiteRtCreateOptions(&raw_options), "options");
  Owned<LiteRtOptions, LiteRtDestroyOptions> options(raw_options);
  check(LiteRtSetOptionsHardwareAccelerators(options.get(), kLiteRtHwAcceleratorCpu), "choosing the processor");
  LiteRtCompiledModel raw_compiled = nullptr;
  check(LiteRtCreateCompiledModel(environment.get(), model.get(), options.get(), &raw_compiled), "compiling");
  Owned<LiteRtCompiledModel, LiteRtDestroyCompiledModel> compiled(raw_compiled);

  const void* told = nullptr;
  std::size_t length = 0;
  check(LiteRtGetModelMetadata(model.get(), "pocketgan", &told, &length), "reading the metadata");
  const std::string facts(static_cast<const char*>(told), length);
  const Feeding how(value_of(facts, "input_layout"), value_of(facts, "input_range"),
                    value_of(facts, "output_range"));

  LiteRtSignature signature = nullptr;
  LiteRtTensor source = nullptr, target = nullptr;
  check(LiteRtGetModelSignature(model.get(), 0, &signature), "the signature");
  check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &source), "the input");
  check(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &target), "the output");
  const LiteRtRankedTensorType taken = type_of(source), given = type_of(target);  // (1, height, width, 3)
  const auto side = [](const LiteRtRankedTensorType& type, int axis) {
    return static_cast<std::size_t>(type.layout.dimensions[axis]);
  };
  if (picture.height != side(taken, 1) || picture.width != side(taken, 2))
    throw std::runtime_error("the model takes pictures of " + std::to_string(side(taken, 1)) + "x" +
                             std::to_string(side(taken, 2)));
  LiteRtTensorBufferRequirements needs = nullptr;
  check(LiteRtGetCompiledModelInputBufferRequirements(compiled.get(), 0, 0, &needs), "the input's needs");
  Buffer input = buffer_for(environment.get(), taken, needs);
  check(LiteRtGetCompiledModelOutputBufferRequirements(compiled.get(), 0, 0, &needs), "the output's needs");
  Buffer output = buffer_for(environment.get(), given, needs);

  // For every picture:
  void* room = nullptr;
  check(LiteRtLockTensorBuffer(input.get(), &room, kLiteRtTensorBufferLockModeWrite), "opening the input");
  how.to_input(picture, static_cast<float*>(room));
  check(LiteRtUnlockTensorBuffer(input.get()), "closing the input");
  LiteRtTensorBuffer inputs[] = {input.get()}, outputs[] = {output.get()};
  check(LiteRtRunCompiledModel(compiled.get(), 0, 1, inputs, 1, outputs), "running");
  check(LiteRtLockTensorBuffer(output.get(), &room, kLiteRtTensorBufferLockModeRead), "opening the output");
  Picture made = how.to_picture(static_cast<const float*>(room), side(given, 1), side(given, 2));
  check(LiteRtUnlockTensorBuffer(output.get()), "closing the output");
  return made;
}
